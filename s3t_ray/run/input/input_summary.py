"""A summary of the run's data at ingest: files, sizes, and what was reported about the rows.

In: a finished ingest. Out: one small file in the storage. It contains names, sizes and counts, and nothing that reveals
a record's content, so deletions do not need to erase it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from s3t_ray.config.schema import Data
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.taught import Taught
from s3t_ray.store import layout
from s3t_ray.store.store import Store


class InputFile(BaseModel):
    """A file of the data at ingest."""

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    """Size in bytes; -1: it was on another machine."""
    modified_ns: int
    """Time of the last change, in nanoseconds since 1970; -1: it was on another machine."""


class InputSummary(BaseModel):
    """Summary of the data of one run."""

    model_config = ConfigDict(frozen=True)

    path: str
    files: tuple[InputFile, ...]
    ids_derived: bool
    teaching_nothing: int
    """Training records without a response within task.max_tokens."""
    partition_key: Literal["secret", "seed"] = "seed"
    """How the partition was keyed; earlier versions always used the seed."""


def summarise(data: Data, reading: Reading, taught: Taught) -> InputSummary:
    """The summary of a finished ingest."""
    return InputSummary(
        path=data.path,
        files=tuple(_file(name) for name in reading.files),
        ids_derived=reading.ids_derived or data.id_field is None,
        teaching_nothing=taught.nothing,
        partition_key=data.partition_key,
    )


def read_summary(store: Store) -> InputSummary | None:
    """The summary of the run in `store`; None: an earlier version ingested its data, or the file is damaged."""
    if not store.exists(layout.INPUT_SUMMARY):
        return None
    try:
        return InputSummary.model_validate_json(store.read_bytes(layout.INPUT_SUMMARY))
    except ValidationError:
        return None


def is_unchanged(summary: InputSummary) -> bool:
    """Whether every file is on this machine and has the same size and time of last change."""
    return bool(summary.files) and all(file.size >= 0 and _file(file.name) == file for file in summary.files)


def _file(name: str) -> InputFile:
    try:
        found = Path(name).stat()
    except (OSError, ValueError):
        return InputFile(name=name, size=-1, modified_ns=-1)
    return InputFile(name=name, size=found.st_size, modified_ns=found.st_mtime_ns)
