"""The measurements of a trial, kept in the sweep's folder, so that a restarted sweep does not measure it again.

In: figures of a trial. Out: a file named by everything that they depend on, and the figures read back from it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from s3t_ray.config.load import dump_config
from s3t_ray.errors import DataError
from s3t_ray.sweep.objectives import Measured
from s3t_ray.sweep.result_file import write_whole
from s3t_ray.sweep.trials import Trial

MEASURED_FOLDER = "measured"
"""In the sweep's folder."""


def measured_file(folder: Path, trial: Trial, limit: int | None) -> Path:
    """Where a trial's figures are kept. `limit`: held-out records that its losses are measured on, at most."""
    name = hashlib.sha256(f"{dump_config(trial.config)}\n{limit}".encode()).hexdigest()[:16]
    return folder / MEASURED_FOLDER / f"{name}.json"


def keep(file: Path, measured: Measured) -> None:
    """Whole or not at all, and on the disk when this returns."""
    write_whole(file, json.dumps(asdict(measured)))


def kept(file: Path) -> Measured | None:
    """The figures; None: this trial has not ended yet. DataError: the file holds something else."""
    if not file.is_file():
        return None
    try:
        return TypeAdapter(Measured).validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        raise DataError(
            f"{file} does not hold a trial's measurements: {error.errors()[0]['msg']}",
            "remove it, and the sweep measures its trial again",
        ) from error
