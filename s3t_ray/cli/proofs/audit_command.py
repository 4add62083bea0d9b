"""`s3t audit`: everything that can be checked about a run, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.cli.options import AddressOption, JsonOption, RunArgument
from s3t_ray.cli.proofs.proof_files import read_file, read_proof_file
from s3t_ray.errors import S3TError

FULL_REPLAY = 2


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t audit runs/alpaca\n"
        "$ s3t audit runs/alpaca --full\n"
        "$ s3t audit runs/alpaca --records handed-in.jsonl\n"
        "$ s3t audit runs/alpaca --certificate deletion.json --receipt ann.receipt.json --json"
    )(audit)


FullOption = Annotated[
    bool, typer.Option("--full", help="Also replay stages and measure how well membership can be inferred.")
]
ReplayOption = Annotated[
    int | None,
    typer.Option("--replay", min=0, metavar="N", help=f"Retrain N live stages; default with --full: {FULL_REPLAY}."),
]
RecordsOption = Annotated[
    Path | None,
    typer.Option(
        "--records",
        metavar="FILE",
        help="Records in the format of the run's data, such as a deleted person's, to test for membership.",
    ),
]
CertificateOption = Annotated[
    list[Path] | None,
    typer.Option("--certificate", metavar="FILE", help="Certificates you were given; each must be in the log."),
]
ReceiptsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--receipt",
        metavar="FILE",
        help="Receipts you were given (`s3t delete --receipt-out`); each must be in the log.",
    ),
]
CheckpointOption = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", metavar="FILE", help="Checkpoints that you kept (`s3t head`) or were given."),
]
AskWitnessOption = Annotated[
    list[str] | None,
    typer.Option("--witness", metavar="'URL KEY'", help="A witness to ask for the newest checkpoint it cosigned."),
]
KnownKeyOption = Annotated[
    Path | None,
    typer.Option("--public-key", metavar="PEM", help="Your copy of the run's public.pem, which it must still use."),
]


def audit(
    run: RunArgument,
    full: FullOption = False,
    replay: ReplayOption = None,
    records: RecordsOption = None,
    certificates: CertificateOption = None,
    receipts: ReceiptsOption = None,
    checkpoints: CheckpointOption = None,
    witnesses: AskWitnessOption = None,
    public_key: KnownKeyOption = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Look for every trace of tampering: in certificates, ledger, records, stages and storage.

    Exit code 8: there is a problem. Exit code 10: there is no problem, but a
    replay on other hardware or library versions proves nothing.

    Certificates, receipts and checkpoints from earlier (--certificate,
    --receipt, --checkpoint, --witness) also reveal a run that was reset as a
    whole to an earlier moment. The public key (--public-key) also reveals a
    run whose config was changed to name other keys and another ledger.
    Membership is a measurement, and proves nothing.
    """
    from s3t_ray.audit.audit import audit as audit_run
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import note, print_json, stderr_console, stdout_console
    from s3t_ray.cli.show.show_membership import membership_view
    from s3t_ray.cli.show.show_proof import FullAudit, audit_view, raise_unless_verified
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.run.log.log_witnesses import WitnessAddress
    from s3t_ray.run.run import Run

    count = replay if replay is not None else FULL_REPLAY if full else 0
    known = [text for path in certificates or () for text in read_proof_file(path).entries]
    handed = [read_file(path, "the receipt").decode(errors="replace").strip() for path in receipts or ()]
    trusted = None if public_key is None else read_file(public_key, "the public key")
    membership = unmeasured = None
    with Run.open(run, read_only=True) as opened, progress(stderr_console()) as display:
        report = audit_run(
            opened,
            replay=count,
            known=known,
            receipts=handed,
            checkpoints=[read_file(path, "the checkpoint").decode(errors="replace") for path in checkpoints or ()],
            witnesses=[WitnessAddress.parse(text) for text in witnesses or ()],
            trusted_key=trusted,
            address=address,
            watch=display.note,
        )
        if full or records is not None:
            from s3t_ray.audit.membership import audit_membership
            from s3t_ray.runtime.model_host import model_host

            try:
                with model_host(opened, address, display.note) as host:
                    membership = audit_membership(opened, records=records, watch=display.note, host=host)
            except S3TError as error:  # no held-out records or no live model: the rest of the audit is valid
                unmeasured = error
                note(f"membership was not measured: {error.problem}")
    if not json:
        console = stdout_console()
        console.print(audit_view(report, glyphs(console)))
        if membership is not None:
            console.print(membership_view(membership))
    else:
        print_json(report if membership is None else FullAudit(**dict(report), membership=membership))
    raise_unless_verified(report, "keep this report and do not change the run; each problem names what to look at")
    if unmeasured is not None and records is not None:
        raise unmeasured  # membership was requested explicitly
