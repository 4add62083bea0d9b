"""`s3t restore`: repeat in a run from a backup what was deleted since, before anything is served."""

from __future__ import annotations

import typer

from s3t_ray.cli.options import JsonOption, RunArgument


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example:\n$ s3t restore runs/alpaca")(restore)


def restore(run: RunArgument, json: JsonOption = False) -> None:
    """Repeat every deletion made since the backup that this run was restored from.

    If a run is older than its keys or the copy of its log remember, every
    command that serves, trains or deletes refuses it. This command repeats
    the later deletions from the copy of the log in `ledger.log_copy`. Then
    the run opens, and the next `s3t train` purges and heals it. A deletion
    keeps its id and gets a new receipt. The entries that the log lost stay
    next to the copy.
    """
    from s3t_ray.cli.show.output import note, print_document, print_json
    from s3t_ray.run.integrity.restore import restore as restore_run
    from s3t_ray.run.reports import RestoreReport
    from s3t_ray.run.run import Run

    with Run.open_unchecked(run) as opened:
        done = restore_run(opened, note)
    if json:
        print_json(RestoreReport(lost_entries=done.lost_entries, deletions=done.deletions))
    elif not done.lost_entries:
        print_document("nothing to do: the run has everything that is in the copy of its log")
    else:
        print_document(
            f"repeated {len(done.deletions)} deletions; the log had lost {done.lost_entries} entries. Next: "
            "`s3t train` purges and heals, and `s3t certificate` shows the new receipts"
        )
