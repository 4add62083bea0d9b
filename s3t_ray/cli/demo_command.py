"""`s3t demo`: from training to a proved deletion on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example:\n$ s3t demo --folder demo-run")(demo)


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the demo's run.")] = Path("demo-run"),
    json: JsonOption = False,
) -> None:
    """Train a small model, delete a person's records, and prove that they are gone. Takes about ten minutes.

    With --json the explanations go to stderr and the run's final status goes to stdout.
    """
    import sys
    from contextlib import nullcontext, redirect_stdout

    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import print_json, story_console
    from s3t_ray.demo.story import run_demo
    from s3t_ray.run.run import Run
    from s3t_ray.run.status import status

    with redirect_stdout(sys.stderr) if json else nullcontext():
        run_demo(folder, story_console(stderr=json), progress)
    if json:
        with Run.open(str(folder)) as run:
            print_json(status(run))
