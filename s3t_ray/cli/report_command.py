"""`s3t report`: a run, or an experiment, as one HTML page with CSV files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.errors import ConfigError, DataError

if TYPE_CHECKING:
    from s3t_ray.report.page_model import ReportPage
    from s3t_ray.run.reports import Evaluation

DEFAULT_FOLDER = Path("s3t-report")


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t report runs/alpaca\n"
        "$ s3t eval runs/alpaca --json > eval.json; s3t report runs/alpaca --eval eval.json --price-per-hour 3.20\n"
        "$ s3t report --experiment results --out results-report"
    )(report)


def report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="The run: its folder, its s3:// or gs:// URI, or its YAML file."),
    ] = None,
    experiment: Annotated[
        Path | None,
        typer.Option("--experiment", metavar="FOLDER", help="Folder of benchmark results, instead of a run."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for report.html and the CSV files.")
    ] = DEFAULT_FOLDER,
    evaluations: Annotated[
        list[Path] | None,
        typer.Option("--eval", metavar="FILE", help="Output of `s3t eval RUN --json`; can be repeated."),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour", min=0.0, help="Price of one worker group per hour; adds prices to the report."
        ),
    ] = None,
) -> None:
    """Write one HTML page: the run, its depth over time, deletions and certificates, quality, cost. Needs no cluster.

    The page is self-contained, so you can mail it. It holds counts, digests
    and times, and no id of a record or a person. Prints the page's path.
    """
    from s3t_ray.cli.show.output import print_document
    from s3t_ray.report.report_files import write_report

    if (run is None) == (experiment is None):
        raise ConfigError("a report covers either a run or an experiment", "give either RUN or --experiment FOLDER")
    if experiment is not None:
        from s3t_ray.report.experiment_folder import experiment_page

        page = experiment_page(experiment)
    else:
        assert run is not None
        page = _page_of_run(run, evaluations or [], price_per_hour)
    print_document(str(write_report(page, out)))


def _page_of_run(run: str, evaluations: list[Path], price_per_hour: float | None) -> ReportPage:
    from s3t_ray.report.run_facts import read_facts
    from s3t_ray.report.run_page import run_page
    from s3t_ray.run.run import Run

    named = {path.stem: _evaluation(path) for path in evaluations}
    if len(named) < len(evaluations):
        raise ConfigError("two evaluations have the same file name", "rename one: the report tells them apart by name")
    with Run.open(run, read_only=True) as opened:
        return run_page(read_facts(opened), named, price_per_hour)


def _evaluation(path: Path) -> Evaluation:
    from pydantic import ValidationError

    from s3t_ray.run.reports import Evaluation

    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path} is not an evaluation: {error}", "give a file that holds only the output of `s3t eval RUN --json`"
        ) from error
