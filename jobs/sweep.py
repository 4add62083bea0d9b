"""Compare configs by their cost and by how many deletions they survive, as a Ray job (with Ray Tune).

    ray job submit --working-dir jobs -- python sweep.py my.yaml --folder /shared/sweep \
        --vary 'budget=[1, 2, 4]' --vary 'lora.rank=[8, 32]' --deletions 50 --gpu-hours 100
    python jobs/sweep.py llama-2-13b --vary 'budget=[1, 4, 20]' --vary 'order.kind=[cyclic, chains]' \
        --forecast-only --records 52002 --tokens-per-record 182

Trials with the same stage names (such as those that differ only in budget) share a run, so the next budget
trains only what is new. A restarted sweep trains only what is missing.
"""

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.cli.options import AddressOption, ConfigArgument, SetOption
from s3t_ray.cli.ray_job import run_as_job


def sweep(
    config: ConfigArgument,
    vary: Annotated[
        list[str] | None, typer.Option("--vary", metavar="A.B=[V, W]", help="Values of one field; every combination.")
    ] = None,
    points: Annotated[
        Path | None, typer.Option("--points", help="YAML list of points, each {path: value}, in place of --vary.")
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the sweep's runs and results.")] = Path("sweep"),
    forecast_only: Annotated[bool, typer.Option("--forecast-only", help="Train nothing.")] = False,
    deletions: Annotated[
        int, typer.Option("--deletions", min=0, help="Number of deletions that the run must survive without healing.")
    ] = 20,
    gpu_hours: Annotated[
        float | None, typer.Option("--gpu-hours", min=0, help="Maximum GPU hours of the first training.")
    ] = None,
    tflops: Annotated[
        float, typer.Option("--tflops", min=0.001, help="Rate that a GPU really reaches, in TFLOP/s.")
    ] = 150.0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Held-out records to measure losses on.")] = None,
    records: Annotated[int | None, typer.Option("--records", min=1, help="As for `s3t plan`.")] = None,
    tokens_per_record: Annotated[
        float | None, typer.Option("--tokens-per-record", min=1, help="As for `s3t plan`.")
    ] = None,
    labelled_share: Annotated[
        float | None, typer.Option("--labelled-share", min=0, max=1, help="As for `s3t plan`.")
    ] = None,
    overrides: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Compare configs: deletions survived, remaining depth and loss, training cost, storage."""
    from s3t_ray.cli.plan_command import data_size, model_shape
    from s3t_ray.cli.show.output import note, stdout_console
    from s3t_ray.config.load import load_config
    from s3t_ray.config.location import in_job_copy
    from s3t_ray.errors import ConfigError
    from s3t_ray.sweep.choose import Need
    from s3t_ray.sweep.objectives import Size
    from s3t_ray.sweep.show_sweep import table
    from s3t_ray.sweep.space import grid, points_from
    from s3t_ray.sweep.sweep import Mode
    from s3t_ray.sweep.sweep import sweep as run_sweep

    if (points is None) == (not vary):
        raise ConfigError("a sweep takes --vary or --points", "give one of them")
    if in_job_copy(Path.cwd()) and folder.absolute().is_relative_to(Path.cwd()):
        raise ConfigError(
            f"--folder {folder} is in this job's copy of its working folder, which is deleted after the job",
            "name an absolute folder on a disk that all nodes share",
        )
    base = load_config(config, overrides or ())
    data, _ = data_size(base, records, tokens_per_record, labelled_share)
    size = Size(data.records, data.tokens_per_record, data.labelled_share, model_shape(base))
    need = Need(deletions, gpu_hours, tflops)
    found = run_sweep(
        base,
        grid(vary or ()) if points is None else points_from(points),
        folder.absolute(),
        need,
        size,
        Mode.FORECAST if forecast_only else Mode.TRAIN,
        address=address,
        limit=limit,
        note=note,
    )
    console = stdout_console()
    console.print(table(found.outcomes, found.front, need))
    for label, reason in found.failures.items():
        console.print(f"failed: {label}: {reason.strip().splitlines()[-1]}")
    console.print(found.recommendation)
    console.print(f"{found.picture}, and sweep.json next to it")
    if found.failures:
        raise typer.Exit(7)


if __name__ == "__main__":
    run_as_job(sweep)
