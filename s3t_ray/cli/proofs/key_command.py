"""`s3t rotate-key`: replace a run's signing key, with an entry in its log."""

from __future__ import annotations

from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption, RunArgument


def add_to(app: typer.Typer) -> None:
    app.command(
        "rotate-key",
        epilog="Examples:\n$ s3t rotate-key runs/alpaca\n$ s3t rotate-key runs/alpaca --handed-to 'Example Trust Ltd'\n"
        "$ s3t rotate-key runs/alpaca --token 'pkcs11:token=run;object=sign?module-path=/usr/lib/libsofthsm2.so'",
    )(rotate_key)


def rotate_key(
    run: RunArgument,
    handed_to: Annotated[
        str | None, typer.Option("--handed-to", metavar="NAME", help="Who operates the run from now on.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="URI", help="An Ed25519 key pair on a PKCS#11 token signs (RFC 7512)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a new signing key for receipts, certificates and checkpoints, and erase the old one from keys.dir.

    The change is an entry of the log, signed by both keys. Earlier receipts
    and certificates stay valid. Restart schedulers and services: a process
    that still has the old key is refused. Give witnesses the new key (`s3t
    head RUN --key`) in addition to the old one, and give auditors
    public.pem. The secret that hides ids does not change, because without it
    deletions would be impossible. A token's PIN comes from S3T_PKCS11_PIN or
    from the file that the URI names with pin-source.
    """
    from s3t_ray.cli.show.output import note, print_document
    from s3t_ray.ledger.signers.pkcs11_uri import Pkcs11Uri
    from s3t_ray.run.log.key_change import change_key
    from s3t_ray.run.log.published_log import publish, verifier_key
    from s3t_ray.run.run import Run

    uri = None if token is None else Pkcs11Uri.parse(token)
    with Run.open(run) as opened:
        entry = change_key(opened, "rotation" if handed_to is None else "hand-over", handed_to, uri)
        publish(opened)
        note(f"entry {entry.facts.sequence} of the log: the signing key is now {entry.facts.next_key}")
        print_document(entry.to_json() if json else str(verifier_key(opened)))
