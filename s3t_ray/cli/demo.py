"""`s3t demo`: the whole story on one machine, from training to a proved deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example:\n$ s3t demo --folder demo-run")(demo)


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Folder that the demo's run is kept in.")] = Path("demo-run"),
    json: JsonOption = False,
) -> None:
    """Train a small model, delete a person's records, and prove that they are gone."""
    from s3t_ray.cli.output import print_json, stderr_console, stdout_console
    from s3t_ray.demo.story import run_demo
    from s3t_ray.runtime.run import Run
    from s3t_ray.runtime.status import status

    run_demo(folder, stderr_console() if json else stdout_console())
    if json:
        with Run.open(str(folder)) as run:
            print_json(status(run))
