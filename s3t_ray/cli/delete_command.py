"""`s3t delete`: prints the durable receipt immediately, then waits until the run is restored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import AddressOption, JsonOption, RunArgument
from s3t_ray.errors import DataError, S3TError, UnknownRecords

if TYPE_CHECKING:
    from s3t_ray.run.reports import DeletionReceipt
    from s3t_ray.run.run import Run


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t delete runs/alpaca --id 17 --id 4711 --dry-run\n"
        "$ s3t delete runs/alpaca --subject ann --receipt-out ann.receipt.json\n"
        "$ s3t delete runs/alpaca --subject ann --with-duplicates\n"
        "$ s3t delete runs/alpaca --subject ann --reference DSR-17 --due 2026-12-31\n"
        "$ s3t delete runs/alpaca --ids-file expired.txt --no-wait\n"
        "$ cat expired.txt | s3t delete runs/alpaca --ids-file - --json"
    )(delete)


IdOption = Annotated[
    list[str] | None, typer.Option("--id", help="Id of a record to delete; can be repeated.", show_default=False)
]
IdsFileOption = Annotated[
    list[str] | None,
    typer.Option("--ids-file", metavar="FILE", help="File with one id per line, taken verbatim; - is stdin."),
]
SubjectOption = Annotated[
    list[str] | None, typer.Option("--subject", help="Delete all records of this person; can be repeated.")
]
SubjectsFileOption = Annotated[
    list[str] | None,
    typer.Option("--subjects-file", metavar="FILE", help="File with one person per line, taken verbatim; - is stdin."),
]
DuplicatesOption = Annotated[
    bool, typer.Option("--with-duplicates", help="Also delete every record with exactly the same content.")
]
NearDuplicatesOption = Annotated[
    bool,
    typer.Option(
        "--with-near-duplicates",
        help="Also delete every record with nearly the same content (closure.threshold).",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted; change nothing.")]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        help="Wait until the run is restored, or stop after the receipt: the next `s3t train` or scheduler then "
        "completes the deletion.",
    ),
]
ReceiptOption = Annotated[
    Path | None,
    typer.Option("--receipt-out", metavar="FILE", help="New file for the signed receipt, to give to the requester."),
]
ReferenceOption = Annotated[
    str | None, typer.Option("--reference", help="Your own reference for the request; kept with the deletion.")
]
RequesterOption = Annotated[
    str | None, typer.Option("--requester", help="Who asked; encrypted, and erased when the deletion is restored.")
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Why; encrypted, and erased when the deletion is restored.")
]
DueOption = Annotated[
    str | None,
    typer.Option("--due", metavar="DATE", help="Date by which the records must be purged (2026-12-31: its end, UTC)."),
]


def delete(
    run: RunArgument,
    ids: IdOption = None,
    ids_files: IdsFileOption = None,
    subjects: SubjectOption = None,
    subjects_files: SubjectsFileOption = None,
    with_duplicates: DuplicatesOption = False,
    with_near_duplicates: NearDuplicatesOption = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = True,
    receipt_out: ReceiptOption = None,
    reference: ReferenceOption = None,
    requester: RequesterOption = None,
    reason: ReasonOption = None,
    due: DueOption = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Delete records, or all records of a person, from a run.

    Prints the receipt as soon as the deletion is durable: from then on it
    cannot be lost. With --json the receipt is the document. Does not prompt.

    Ids that the run does not hold are listed. The others are deleted anyway,
    and the exit code is 4. Repeating a request changes nothing.

    The signed receipt (--receipt-out, or `proof` in the JSON) is evidence:
    `s3t audit --receipt` finds a run that no longer has the deletion.

    Retained records with the same or nearly the same content are listed, by
    the keyed hash of their person. Check with --dry-run first: once a record
    is purged, similar records can no longer be found.
    """
    from s3t_ray.cli.named_ids import named_ids
    from s3t_ray.cli.show.output import print_json, stdout_console
    from s3t_ray.cli.show.show_deletion import impact_view, receipt_view
    from s3t_ray.ledger.values import Reach
    from s3t_ray.run.deletion import accept, preview
    from s3t_ray.run.deletion_list import OfficeRequest, checked
    from s3t_ray.run.run import Run

    if not (ids or ids_files or subjects or subjects_files):
        raise typer.BadParameter("name what to delete: --id, --ids-file, --subject or --subjects-file")
    record_ids, people = named_ids(ids or (), ids_files or ()), named_ids(subjects or (), subjects_files or ())
    reach = Reach.DUPLICATES if with_duplicates else Reach.NAMED
    reach = Reach.NEAR_DUPLICATES if with_near_duplicates else reach
    office = checked(OfficeRequest, reference=reference, requester=requester, reason=reason, due=due)
    with Run.open(run) as opened:
        if dry_run:
            impact = preview(opened, record_ids, people, reach)
            if json:
                print_json(impact)
            else:
                stdout_console().print(impact_view(impact))
            _refuse_unknown(impact.unknown_ids, impact.unknown_subjects, "the others would be deleted")
            return
        if receipt_out is not None and receipt_out.exists():
            raise DataError(f"{receipt_out} already exists", "name a new file: nothing is overwritten")
        receipt = accept(opened, record_ids, people, reach, office.details())
        if receipt_out is not None:
            _write_receipt(receipt_out, receipt)
        if json:
            print_json(receipt)
        else:
            stdout_console().print(receipt_view(receipt))
        if wait:
            _settle(opened, receipt, address, json)
        else:
            _publish(opened)
    _refuse_unknown(receipt.unknown_ids, receipt.unknown_subjects, "the others were deleted")


def _write_receipt(path: Path, receipt: DeletionReceipt) -> None:
    """The deletion is already accepted: a failure here is reported, and the command continues."""
    from s3t_ray.cli.show.output import note

    if receipt.proof is None:
        note("an older version accepted this deletion and signed no receipt: no file was written")
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{receipt.proof.to_json()}\n")
    except OSError as error:
        note(
            f"the deletion is accepted, but its receipt could not be written to {path}: {error.strerror}; "
            "run the same command with another file to write it"
        )


def _publish(run: Run) -> None:
    """Publish the log with the receipt, as a scheduler would."""
    from s3t_ray.cli.show.output import note
    from s3t_ray.run.log.published_log import publish

    try:
        publish(run)
    except S3TError as error:
        note(f"the deletion is accepted, but the log could not be published yet: {error.problem}; fix: {error.fix}")


def _settle(run: Run, receipt: DeletionReceipt, address: str | None, json: bool) -> None:
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import stderr_console, stdout_console
    from s3t_ray.cli.show.show_deletion import settled_view
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.runtime.delete import settle

    with progress(stderr_console()) as display:
        status = settle(run, receipt.request_id, address=address, watch=display.watch)
    if json:
        return
    console = stdout_console()
    for deletion in status.deletions:
        if deletion.request_id == receipt.request_id:
            console.print(settled_view(deletion, glyphs(console)))


def _refuse_unknown(ids: Sequence[str], subjects: Sequence[str], known: str) -> None:
    """Raise UnknownRecords if there are any, after the known ones were handled; `known` says how."""
    from s3t_ray.cli.show.units import listed, plural

    named = [
        f"{plural(len(names), noun)}: {listed(names)}" for noun, names in (("id", ids), ("subject", subjects)) if names
    ]
    if named:
        raise UnknownRecords(
            f"the run does not hold {'; '.join(named)}",
            f"check the spelling (ids are taken verbatim, spaces included); {known}",
        )
