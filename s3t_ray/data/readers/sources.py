"""Streams the rows at `data.path`, one at a time.

In: a file, folder, glob, URI or Hugging Face dataset. Out: RawRows; one that cannot be parsed has a reason instead.
Keeps one row (Parquet: one batch) in memory, whatever the size of the data. `Reading` records what is read and skipped.
Never interprets a row, which `records.py` does. `formats.py` reads the formats, and `remote_files.py` downloads remote
files.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3t_ray.config.schema import Data
from s3t_ray.data.readers.formats import FORMATS, RawRow, file_format, file_rows
from s3t_ray.data.readers.image_folder import has_image_splits, image_rows, is_image_folder
from s3t_ray.data.readers.reading import Reading, some
from s3t_ray.data.readers.splits import is_beside_data, of_another_split, of_split
from s3t_ray.errors import DataError

__all__ = ["RawRow", "find_files", "raw_rows"]

_SAVED_DATASET = ("dataset_dict.json", "state.json")
_SCHEMES = ("s3", "gs", "gcs", "hf", "https", "http")
_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_GLOB = re.compile(r"[*?\[]")


def raw_rows(data: Data, reading: Reading | None = None) -> Iterator[RawRow]:
    """Every row at `data.path`: files in the order of their names, rows in file order.

    Raises DataError if there is no data or a file is damaged as a whole.
    """
    reading = reading or Reading()
    scheme, separator, _ = data.path.partition("://")
    if separator and scheme in _SCHEMES:
        from s3t_ray.data.readers.remote_files import remote_rows

        yield from remote_rows(data, reading)
        return
    if separator and scheme != "file":
        raise DataError(
            f"data.path = {data.path}: {scheme}:// is not supported", f"use a path, or one of {', '.join(_SCHEMES)}"
        )
    if separator:
        data = data.model_copy(update={"path": data.path.removeprefix("file://")})
    if data.format == "huggingface" or _is_saved_dataset(data.path):
        yield from _dataset_rows(data, reading)
        return
    if is_image_folder(data):
        yield from image_rows(data, reading)
        return
    files = find_files(data.path, data.split, reading)
    if files is None:
        yield from _dataset_rows(data, reading)
        return
    for path in files:
        yield from reading.noted(str(path), file_rows(path, str(path), data))


def has_splits(data: Data) -> bool:
    """Whether `data.split` selects rows: in hub datasets, and in saved datasets and image folders with splits."""
    if _is_saved_dataset(data.path):
        return (Path(data.path).expanduser() / "dataset_dict.json").is_file()
    if is_image_folder(data):
        return has_image_splits(data)
    return data.format == "huggingface" or find_files(data.path, data.split) is None


def find_files(path: str, split: str = "train", reading: Reading | None = None) -> tuple[Path, ...] | None:
    """The files that `path` names, sorted; None if it looks like the name of a hub dataset.

    Raises DataError if it names nothing, or a folder with several splits but not `split`.
    """
    reading = reading or Reading()
    place = Path(path).expanduser()
    if place.is_file():
        return (place,)
    if place.is_dir():
        return _in_folder(place, path, split, reading)
    if place.exists():
        raise DataError(
            f"data.path = {path} is a pipe or a device, which can be read only once",
            "write the records to a file",
        )
    if _GLOB.search(path):
        matched = tuple(sorted(Path(item) for item in glob.glob(str(place), recursive=True) if os.path.isfile(item)))
        if not matched:
            raise DataError(f"data.path = {path}: no file matches", "correct the pattern")
        return matched
    if _HUB_NAME.fullmatch(path) and file_format(place.name) is None:
        return None
    raise DataError(f"data.path = {path}: there is no such file or folder", "correct data.path")


def _in_folder(place: Path, path: str, split: str, reading: Reading) -> tuple[Path, ...]:
    found: list[Path] = []
    for item in sorted(place.rglob("*")):
        inside = item.relative_to(place)
        if ".git" in inside.parts or (item.is_dir() and not item.is_symlink()):
            continue
        if not item.is_file():
            reading.skipped.append(_no_file(item, str(inside)))
        elif any(part.startswith(".") for part in inside.parts):
            reading.skipped += [f"{inside} (hidden)"] if file_format(item.name) else []
        elif is_beside_data(item.name):
            reading.skipped.append(f"{inside} (not records, judging by its name)")
        elif file_format(item.name) is None:
            reading.skipped.append(f"{inside} (not a data file)")
        else:
            found.append(item)
    if not found:
        raise DataError(
            f"data.path = {path}: the folder contains no {', '.join(FORMATS)} file"
            + (f"; skipped: {some(reading.skipped)}" if reading.skipped else ""),
            "use the folder with the records, or one file and its data.format",
        )
    names = [str(item.relative_to(place)) for item in found]
    _check_one_revision(names, path)
    kept = of_split(names, split, path)
    reading.other_split = of_another_split(kept, split)
    reading.skipped += [f"{name} (not of the split {split})" for name in names if name not in kept]
    return tuple(item for item, name in zip(found, names, strict=True) if name in kept)


def _check_one_revision(names: Sequence[str], path: str) -> None:
    """Raise DataError if the Hub cache folder holds several revisions: the rows of all of them would be read."""
    revisions = sorted({name.split("snapshots/")[1].split("/")[0] for name in names if "snapshots/" in name})
    if len(revisions) > 1:
        raise DataError(
            f"data.path = {path} is a cache of the hub with {len(revisions)} revisions of the data",
            f"name one of them: {path.rstrip('/')}/snapshots/{revisions[-1]}, or the dataset's hub name (owner/name)",
        )


def _no_file(item: Path, inside: str) -> str:
    """The reason why an entry of a folder is not read. Raises DataError for a broken link to a data file."""
    if item.is_dir():
        return f"{inside} (a link to a folder)"
    if item.exists() or file_format(item.name) is None or inside.startswith("."):
        return f"{inside} (not a data file)"
    raise DataError(f"{item} is a link to a file that is not there", "restore the file, or remove the link")


def _dataset_rows(data: Data, reading: Reading) -> Iterator[RawRow]:
    # Imported here because datasets takes a second to import, and plain files do not need it.
    from datasets import ClassLabel, DatasetDict, Image, load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    try:
        if _is_saved_dataset(data.path):
            saved = load_from_disk(data.path)
            if isinstance(saved, DatasetDict) and data.split not in saved:
                raise DataError(f"data.split = {data.split}: {data.path} has {', '.join(saved)}", "use one of these")
            rows = saved[data.split] if isinstance(saved, DatasetDict) else saved
        else:
            rows = load_dataset(data.path, data.subset, split=data.split, streaming=True)
        classes = {name: kind for name, kind in (rows.features or {}).items() if isinstance(kind, ClassLabel)}
        for name in [name for name, kind in (rows.features or {}).items() if isinstance(kind, Image)]:
            rows = rows.cast_column(name, Image(decode=False))  # the file's own bytes
        reading.files.append(data.path)
        for number, value in enumerate(rows, start=1):
            for name, kind in classes.items():
                if type(value.get(name)) is int and 0 <= value[name] < kind.num_classes:
                    value[name] = kind.int2str(value[name])
            yield RawRow(data.path, number, value)
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"data.path = {data.path}: the dataset cannot be read: {reason[0]}",
            "check its name, data.subset, data.split and your network, or use a file or folder",
        ) from error


def _is_saved_dataset(path: str) -> bool:
    """Whether `Dataset.save_to_disk` wrote this folder. Other folders also contain a dataset_info.json."""
    folder = Path(path).expanduser()
    return any((folder / name).is_file() for name in _SAVED_DATASET)
