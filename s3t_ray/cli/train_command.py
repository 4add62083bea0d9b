"""`s3t train`: read the data, train until the run is complete, report."""

from __future__ import annotations

from typing import Annotated

import typer

from s3t_ray.cli.options import AddressOption, ConfigArgument, JsonOption, SetOption


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n$ s3t train my.yaml\n$ s3t train my.yaml --set budget=4 --set workers.gpus_per_rank=1"
    )(train)


def train(
    config: ConfigArgument,
    address: AddressOption = None,
    overrides: SetOption = None,
    drop_stages: Annotated[
        bool,
        typer.Option(
            "--drop-stages", help="Delete trained stages that a smaller budget or a different order no longer uses."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a run until no stage is missing. After a stop, the same command resumes: published stages are kept."""
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import print_json, stderr_console, stdout_console
    from s3t_ray.cli.show.show_reports import train_view
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.config.load import load_config
    from s3t_ray.runtime.train import train as train_run

    resolved = load_config(config, overrides or ())
    with progress(stderr_console()) as display:
        report = train_run(resolved, address=address, watch=display.watch, note=display.note, drop_stages=drop_stages)
    if json:
        print_json(report)
    else:
        console = stdout_console()
        console.print(train_view(report, glyphs(console)))
