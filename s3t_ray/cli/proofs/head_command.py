"""`s3t head`: the signed checkpoint of a run's published log, and the key to check it with."""

from __future__ import annotations

from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption, RunArgument
from s3t_ray.errors import LedgerError


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n$ s3t head runs/alpaca\n$ s3t head runs/alpaca --publish\n$ s3t head runs/alpaca --key"
    )(head)


def head(
    run: RunArgument,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish", help="First publish what is new, and ask the config's witnesses and timestamp server."
        ),
    ] = False,
    key: Annotated[
        bool, typer.Option("--key", help="Print the log's public key instead, which a witness needs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Print the newest checkpoint of the run's log: how many receipts and certificates there are, and their root hash.

    It is a signed note (c2sp.org/tlog-checkpoint) with the cosignatures of
    witnesses. Keep a copy elsewhere: a log that was reset, rewritten or
    forked does not continue it. A scheduler publishes by itself; --publish
    is for a run without a scheduler, and needs the run's keys. Exit code 8:
    a witness knows another history, or the ledger contradicts what was
    published.
    """
    from s3t_ray.cli.show.output import print_document, print_json
    from s3t_ray.run.log import published_log
    from s3t_ray.run.log.log_timestamps import Timestamps
    from s3t_ray.run.log.log_witnesses import cosign, require_cosigned
    from s3t_ray.run.run import Run

    with Run.open(run, read_only=not publish) as opened:
        if publish:
            note = published_log.publish(opened)
            answers = () if note is None else cosign(opened, note)
            if note is not None:
                Timestamps(opened).stamp(published_log.published(opened) or note)
        note = published_log.published(opened)
        if note is None and not key:
            raise LedgerError(
                "the run's log has not been published yet", "start a scheduler, or run `s3t head RUN --publish`"
            )
        report = published_log.head_report(opened, note)
        if publish and all(answer.cosignature is not None for answer in answers):
            published_log.forget_failed_publishing(opened)
    if json:
        print_json(report)
    else:
        print_document(report.key if key else report.checkpoint.rstrip("\n"))
    if publish:
        require_cosigned(answers)
