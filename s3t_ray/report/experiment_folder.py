"""Builds the page of an experiment from all result files in a folder, in the order of their names.

In: a folder of JSON files, each an `Experiment` written by a benchmark. Out: a `ReportPage`. Raises DataError, with the
file and the field, for an invalid file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from s3t_ray.errors import DataError
from s3t_ray.report.page_model import ReportPage, ReportSection
from s3t_ray.run.reports import Report

FORMAT: Literal["s3t/experiment/1"] = "s3t/experiment/1"


class Experiment(Report):
    """The measurements of one command."""

    format: Literal["s3t/experiment/1"] = FORMAT
    title: str
    command: str
    measured: str
    """When, where and for how long it was measured, and whether the machine was shared."""
    sections: tuple[ReportSection, ...]


def experiment_page(folder: Path) -> ReportPage:
    """The page of the experiments in `folder`, with the folder's name as its title. Raises DataError."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"{folder} has no experiment results (*.json)", "use the folder that a benchmark wrote its results to"
        )
    sections = [section for path in files for section in _sections(read_experiment(path))]
    try:
        return ReportPage(title=folder.resolve().name, subtitle=f"{len(files)} experiments", sections=tuple(sections))
    except ValidationError as error:
        raise DataError(
            f"the results in {folder} cannot be combined on one page: {error.errors()[0]['msg']}",
            "keep only one file per experiment",
        ) from error


def read_experiment(path: Path) -> Experiment:
    """Read one result file. Raises DataError."""
    try:
        return Experiment.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", "make it readable, or remove it from the folder") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path} is not a result of an experiment: {field}: {first['msg']}",
            f"keep only files that a benchmark wrote with format {FORMAT!r} in the folder",
        ) from error


def _sections(experiment: Experiment) -> tuple[ReportSection, ...]:
    made = (f"Command: {experiment.command}", f"Measured: {experiment.measured}")
    return tuple(
        section.model_copy(
            update={
                "title": _title(experiment.title, section.title),
                "text": (*section.text, *(made if at == 0 else ())),
            }
        )
        for at, section in enumerate(experiment.sections)
    )


def _title(experiment: str, section: str) -> str:
    return experiment if section in ("", experiment) else f"{experiment}: {section}"
