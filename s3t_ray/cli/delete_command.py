"""`s3t delete`: the receipt first, durable and printed at once; then the wait until the run is restored."""

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


def delete(
    run: RunArgument,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Id of a record to delete; can be repeated.", show_default=False)
    ] = None,
    ids_files: Annotated[
        list[str] | None,
        typer.Option("--ids-file", metavar="FILE", help="File with one id a line, taken verbatim; - is stdin."),
    ] = None,
    subjects: Annotated[
        list[str] | None, typer.Option("--subject", help="Delete all records of this person; can be repeated.")
    ] = None,
    subjects_files: Annotated[
        list[str] | None,
        typer.Option("--subjects-file", metavar="FILE", help="File with one person per line, verbatim; - is stdin."),
    ] = None,
    with_duplicates: Annotated[
        bool, typer.Option("--with-duplicates", help="Also every record of exactly the same content.")
    ] = False,
    with_near_duplicates: Annotated[
        bool,
        typer.Option(
            "--with-near-duplicates", help="Also every record of nearly the same content (closure.threshold)."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would hit; change nothing.")] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Carry the deletion on until the run is restored, or stop "
            "after the receipt: the next `s3t train` or scheduler does the rest.",
        ),
    ] = True,
    receipt_out: Annotated[
        Path | None,
        typer.Option(
            "--receipt-out", metavar="FILE", help="New file for the signed receipt, to hand to whoever asked."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="Your own name for the request; kept with the deletion.")
    ] = None,
    requester: Annotated[
        str | None, typer.Option("--requester", help="Who asked; encrypted, and erased when it is restored.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why; encrypted, and erased when it is restored.")
    ] = None,
    due: Annotated[
        str | None,
        typer.Option("--due", metavar="DATE", help="By when the records must be purged: 2026-12-31, end of day UTC."),
    ] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Delete records, or all records of a person, from a run.

    Prints the receipt as soon as the deletion is durable: from then on it
    cannot be lost. With --json the receipt is the document. Asks nothing.

    Ids that the run does not hold are listed; the others are deleted all
    the same, and the exit code is 4. Repeating a request changes nothing.

    The signed receipt (--receipt-out, or `proof` in the JSON) cannot be
    taken back: `s3t audit --receipt` finds a run that no longer has the
    deletion.

    Records of the same or nearly the same content that stay are listed, by
    the keyed hash of their person. Look with --dry-run first: once a record
    is purged, nothing can tell any more what was like it.
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
            _refuse_unknown(impact.unknown_ids, impact.unknown_subjects, "the known ones would go on")
            return
        if receipt_out is not None and receipt_out.exists():
            raise DataError(f"{receipt_out} is there already", "name a new file: nothing is overwritten")
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
    _refuse_unknown(receipt.unknown_ids, receipt.unknown_subjects, "the known ones went on")


def _write_receipt(path: Path, receipt: DeletionReceipt) -> None:
    """The deletion is a fact already: what goes wrong here is told, and it goes on."""
    from s3t_ray.cli.show.output import note

    if receipt.proof is None:
        note("this deletion was accepted by an older version, which signed no receipt: no file was written")
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{receipt.proof.to_json()}\n")
    except OSError as error:
        note(
            f"the deletion is accepted, and its receipt could not be written to {path}: {error.strerror}; "
            "the same command with another file writes it"
        )


def _publish(run: Run) -> None:
    """Show the receipt in the published log, which a scheduler would do otherwise."""
    from s3t_ray.cli.show.output import note
    from s3t_ray.run.log.published_log import publish

    try:
        publish(run)
    except S3TError as error:
        note(f"the deletion is accepted; the log could not be published yet: {error.problem}; fix: {error.fix}")


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
    """Raise UnknownRecords when there are any, after everything known was done; `known` says what of it."""
    from s3t_ray.cli.show.units import listed, plural

    named = [
        f"{plural(len(names), noun)}: {listed(names)}" for noun, names in (("id", ids), ("subject", subjects)) if names
    ]
    if named:
        raise UnknownRecords(
            f"the run does not hold {'; '.join(named)}",
            f"check the spelling (ids are taken verbatim, spaces included); {known}",
        )
