"""Stores the measurements of a trial in the sweep's folder, so that a restarted sweep does not repeat them.

In: the measurements of a trial. Out: a file named by a digest of everything that they depend on, and the measurements
read back from it.
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
"""The folder of measurements, inside the sweep's folder."""


def measured_file(folder: Path, trial: Trial, limit: int | None) -> Path:
    """The file of a trial's measurements. `limit`: maximum number of held-out records for its losses."""
    name = hashlib.sha256(f"{dump_config(trial.config)}\n{limit}".encode()).hexdigest()[:16]
    return folder / MEASURED_FOLDER / f"{name}.json"


def keep(file: Path, measured: Measured) -> None:
    """Write the measurements atomically and durably. Raises StoreError."""
    write_whole(file, json.dumps(asdict(measured)))


def kept(file: Path) -> Measured | None:
    """The stored measurements; None: the trial has not finished. Raises DataError if the file is invalid."""
    if not file.is_file():
        return None
    try:
        return TypeAdapter(Measured).validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        raise DataError(
            f"{file} does not hold a trial's measurements: {error.errors()[0]['msg']}",
            "remove it, and the sweep will measure the trial again",
        ) from error
