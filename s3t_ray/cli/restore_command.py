"""`s3t restore`: a run from a backup forgets again what was deleted since, before anything is served."""

from __future__ import annotations

import typer

from s3t_ray.cli.options import JsonOption, RunArgument


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example:\n$ s3t restore runs/alpaca")(restore)


def restore(run: RunArgument, json: JsonOption = False) -> None:
    """Delete again, in a run that was restored from a backup, everything that was deleted since it was taken.

    A run that is older than its keys, or the copy of its log, remember is
    refused by every command that serves, trains or deletes. This makes each
    later deletion anew, from the copy of the log that `ledger.log_copy`
    names. Then the run opens, and the next `s3t train` purges and heals it.
    A deletion keeps its id and gets a new receipt. The entries that the log
    lost stay beside the copy.
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
        print_document("the run has all that the copy of its log knows: nothing to do")
    else:
        print_document(
            f"{len(done.deletions)} deletions made again; the log had lost {done.lost_entries} entries. `s3t train` "
            "purges and heals; `s3t certificate` has the new receipts"
        )
