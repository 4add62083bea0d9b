"""Where rows lie: `data.path` into a stream of (source, number, row), a row at a time.

In: a file, folder, glob, or Hugging Face dataset. Out: Rows; one that cannot even be parsed carries
the reason in its place. Memory holds one row (Parquet: one batch) whatever the size of the data.
Must never judge what a row means (`records.py`), and imports pyarrow and datasets only when asked
for what they read.
"""

from __future__ import annotations

import codecs
import glob
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from s3t_ray.config.schema import Data
from s3t_ray.data.json_array import BrokenArray, array_items
from s3t_ray.errors import DataError

ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".pq": "parquet"}
_SAVED_DATASET = ("dataset_info.json", "dataset_dict.json")
_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_GLOB = re.compile(r"[*?\[]")
_PEEK_BYTES = 4096
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of a source: `number` is its line, or its place in an array, table or dataset, from 1."""

    source: str
    number: int
    value: object
    problem: str | None = None  # why it cannot be parsed


def raw_rows(data: Data) -> Iterator[RawRow]:
    """Every row at `data.path`: files in the order of their names, rows in the order of the file.

    Raises DataError: nothing is there, or a file is damaged as a whole.
    """
    if data.format == "huggingface" or _is_saved_dataset(data.path):
        yield from _dataset_rows(data)
        return
    files = find_files(data.path)
    if files is None:
        yield from _dataset_rows(data)
        return
    for path in files:
        yield from _file_rows(path, data.format)


def has_splits(data: Data) -> bool:
    """Whether `data.split` chooses among rows: of a hub dataset or a saved one with splits, not of files."""
    if _is_saved_dataset(data.path):
        return (Path(data.path).expanduser() / "dataset_dict.json").is_file()
    return data.format == "huggingface" or find_files(data.path) is None


def find_files(path: str) -> tuple[Path, ...] | None:
    """The files that `path` names, sorted; None when it looks like the name of a hub dataset.

    Raises DataError when it names nothing.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return (place,)
    if place.is_dir():
        found = tuple(sorted(item for item in place.rglob("*") if _is_visible_data(item, place)))
        if not found:
            raise DataError(
                f"data.path = {path}: the folder holds no {', '.join(ENDINGS)} file",
                "name the folder with the records, or one file and its data.format",
            )
        return found
    if _GLOB.search(path):
        matched = tuple(sorted(Path(item) for item in glob.glob(str(place), recursive=True) if os.path.isfile(item)))
        if not matched:
            raise DataError(f"data.path = {path}: no file matches", "correct the pattern")
        return matched
    if _HUB_NAME.fullmatch(path) and place.suffix.lower() not in ENDINGS:
        return None
    raise DataError(f"data.path = {path}: there is no such file or folder", "correct data.path")


def _is_visible_data(item: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in item.relative_to(folder).parts)
    return not hidden and item.suffix.lower() in ENDINGS and item.is_file()


def _file_rows(path: Path, file_format: str) -> Iterator[RawRow]:
    if file_format == "auto":
        known = ENDINGS.get(path.suffix.lower())
        if known is None:
            raise DataError(
                f"data.path: the ending of {path} does not tell its format",
                "set data.format to jsonl, json or parquet",
            )
        file_format = known
    try:
        if file_format == "parquet":
            yield from _parquet_rows(path)
        elif file_format == "json" and _first_character(path) != "{":
            yield from _array_rows(path)
        else:  # a .json file that begins with an object holds an object a line
            yield from _line_rows(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "restore the file") from error


def _line_rows(path: Path) -> Iterator[RawRow]:
    source = str(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield RawRow(source, number, json.loads(line))  # takes a byte-order mark, too
            except UnicodeDecodeError as error:
                yield RawRow(source, number, None, f"not UTF-8 (byte {error.start} of the line)")
            except json.JSONDecodeError as error:
                yield RawRow(source, number, None, f"not JSON: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:  # a number or a nesting without end
                yield RawRow(source, number, None, f"not JSON that can be held: {type(error).__name__}")


def _array_rows(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        try:
            for number, value in enumerate(array_items(file), start=1):
                yield RawRow(str(path), number, value)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text, after record {number}", "convert it to UTF-8") from error
        except BrokenArray as error:
            raise DataError(f"{path}: {error}", "make it one array of objects, or write one object a line") from error


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = count(1)
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for value in batch.to_pylist():
                    yield RawRow(str(path), next(numbers), value)
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}", "restore the file, then start again") from error


def _dataset_rows(data: Data) -> Iterator[RawRow]:
    # Imported late: datasets costs a second that files need not pay.
    from datasets import DatasetDict, load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    try:
        if _is_saved_dataset(data.path):
            saved = load_from_disk(data.path)
            if isinstance(saved, DatasetDict) and data.split not in saved:
                raise DataError(f"data.split = {data.split}: {data.path} has {', '.join(saved)}", "name one of these")
            rows = saved[data.split] if isinstance(saved, DatasetDict) else saved
        else:
            rows = load_dataset(data.path, data.subset, split=data.split, streaming=True)
        for number, value in enumerate(rows, start=1):
            yield RawRow(data.path, number, value)
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"data.path = {data.path}: the dataset cannot be read: {reason[0]}",
            "check its name, data.subset, data.split and your network, or name a file or folder",
        ) from error


def _is_saved_dataset(path: str) -> bool:
    folder = Path(path).expanduser()
    return any((folder / name).is_file() for name in _SAVED_DATASET)


def _first_character(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_PEEK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()[:1].decode("latin-1")
