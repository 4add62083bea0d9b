"""`s3t deletions`: a filtered list of a run's deletions, with their references, requesters and due dates."""

from __future__ import annotations

from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption, RunArgument


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t deletions runs/alpaca --overdue\n"
        "$ s3t deletions runs/alpaca --state purged --json\n"
        "$ s3t deletions runs/alpaca --reference DSR-17"
    )(deletions)


def deletions(
    run: RunArgument,
    state: Annotated[
        str | None, typer.Option("--state", help="Only deletions in this state: accepted, pruned, purged or restored.")
    ] = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only deletions past their due date whose records are not purged.")
    ] = False,
    due_before: Annotated[
        str | None,
        typer.Option("--due-before", metavar="DATE", help="Only deletions due before this date and not purged."),
    ] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Only deletions with this reference.")] = None,
    requester: Annotated[
        str | None, typer.Option("--requester", help="Only deletions requested by this person and not yet restored.")
    ] = None,
    after: Annotated[
        int | None, typer.Option("--after", min=0, help="Only deletions numbered above this, for the next page.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=1000, help="Maximum number of deletions to list.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List a run's deletions with their references and due dates.

    Needs the run's keys, because references, requesters and reasons are
    encrypted with them. Requesters and reasons are erased when a deletion is
    restored.
    """
    from s3t_ray.cli.show.output import note, print_json, stdout_console
    from s3t_ray.cli.show.show_deletion import list_view
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.run.deletion_list import DeletionFilter, checked, list_deletions
    from s3t_ray.run.run import Run

    wanted = checked(
        DeletionFilter,
        state=state,
        overdue=overdue,
        due_before=due_before,
        reference=reference,
        requester=requester,
        after=after,
        limit=limit,
    )
    with Run.open_to_look(run) as opened:
        found = list_deletions(opened, wanted)
    if json:
        print_json(found)
        return
    console = stdout_console()
    if found.deletions:
        console.print(list_view(found.deletions, glyphs(console)))
    else:
        note("no deletion matches")
    if found.more:
        note(f"there are more: --after {found.deletions[-1].number}")
