"""Reads a folder of images with one subfolder per class, as rows with id, image and label.

In: `<root>/<class>/.../<file>`, or `<root>/<split>/<class>/.../<file>` if all top-level folders are named like splits.
Out: one row per image file, in the order of their names. The id is the path below the root or the split; its first
folder is the class. Never follows links, and never writes a file's name to anything that the run keeps except the
record's id: a file's name is personal data, and a purge erases only the id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s3t_ray.config.schema import Data
from s3t_ray.data.images.image_file import MOST_BYTES
from s3t_ray.data.readers.formats import RawRow, file_format
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.readers.splits import split_named
from s3t_ray.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Extensions of image files. Files in unsupported formats become malformed rows, so none is skipped silently."""


def is_image_folder(data: Data) -> bool:
    """Whether to read `data.path` as an image folder: by `data.format`, or because it has images and no other data."""
    place = Path(data.path).expanduser()
    if data.format == "images":
        return True
    if data.format != "auto" or not place.is_dir():
        return False
    files = [path for path in place.rglob("*") if _is_ours(path, place)]
    return any(_is_image(path) for path in files) and not any(file_format(path.name) for path in files)


def image_rows(data: Data, reading: Reading) -> Iterator[RawRow]:
    """One row per image of `data.split`. Raises DataError if the folder contains none, or not this split."""
    place = Path(data.path).expanduser()
    if not place.is_dir():
        raise DataError(
            f"data.path = {data.path}: not a folder, and data.format is images",
            "use the folder that has one subfolder per class",
        )
    files = [path for path in sorted(place.rglob("*")) if _is_ours(path, place)]
    images = [path for path in files if _is_image(path)]
    skipped = len(files) - len(images)
    root = place
    if has_image_splits(data):
        folders = [path for path in place.iterdir() if split_named(path.name) == split_named(data.split)]
        if len(folders) != 1:
            found = ", ".join(sorted(path.name for path in place.iterdir() if path.is_dir()))
            raise DataError(
                f"data.path = {data.path}: the folder holds the splits {found}, but data.split is {data.split}",
                "set data.split to one of them",
            )
        root = folders[0]
        images = [path for path in images if path.is_relative_to(root)]
    if not images:
        raise DataError(f"data.path = {data.path}: the folder contains no images", "use the folder with the classes")
    reading.files.append(f"{root} ({len(images):,} images)")
    if skipped:
        reading.skipped.append(f"{skipped:,} that are not images")
    for path in images:
        yield _row(path, root)


def has_image_splits(data: Data) -> bool:
    """Whether all top-level folders are splits, so that `data.split` selects one."""
    place = Path(data.path).expanduser()
    names = [path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return bool(names) and all(split_named(name) is not None for name in names)


def _row(path: Path, root: Path) -> RawRow:
    inside = path.relative_to(root)
    row: dict[str, object] = {"id": inside.as_posix()}
    if len(inside.parts) < 2:
        return RawRow(str(path), 1, row, "the image is not in the folder of a class")
    try:
        with path.open("rb") as file:
            row |= {"image": file.read(MOST_BYTES + 1), "label": inside.parts[0]}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "allow reading it, or restore the file") from error
    return RawRow(str(path), 1, row)


def _is_ours(path: Path, root: Path) -> bool:
    inside = path.relative_to(root)
    return path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in inside.parts)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS
