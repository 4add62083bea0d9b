"""Recognizes files that do not match their names: archives, web pages, pointers, text in another encoding.

In: the first bytes of a file, as a reader of text or Parquet would get them, or a table's first line. Out: what the
file is and what to do, so that an archive is not reported as "line 1: not JSON". Must never refuse a file that the
reader can read correctly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s3t_ray.errors import DataError

_POINTER = b"version https://git-lfs.github.com/"
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is compressed with gzip", "name it .gz, or unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "name it .zst, or unpack it"),
    (b"\xfd7zXZ\x00", "is compressed with xz", "unpack it"),
    (b"PK\x03\x04", "is a ZIP archive, or an Excel workbook", "unpack it; save a workbook as CSV (UTF-8)"),
    (b"ARROW1\x00\x00", "is an Arrow file", "name the folder that save_to_disk wrote, or convert it to Parquet"),
    (b"SQLite format 3\x00", "is an SQLite database", "write its table to a CSV or Parquet file"),
    (_POINTER, "is a Git LFS pointer, not the file itself", "run `git lfs install && git lfs pull` in its folder"),
    (b"\xff\xfe", "is UTF-16 text, not UTF-8", "save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text, not UTF-8", "save it as UTF-8"),
)
_PARQUET = b"PAR1"
_TEXT_STARTS = tuple(bytes([code]) for code in b'{["' + bytes(range(65, 91)) + bytes(range(97, 123)))
_DELIMITERS = (";", "\t", "|")
_PAGE = (b"<!doctype html", b"<html")
LONGEST_START = 512
"""Number of bytes to examine."""


def check_start(start: bytes, kind: str, source: str) -> None:
    """Raise DataError if a file that starts with `start` is recognizably not of the format `kind`."""
    found = _told(start, kind)
    if found is not None:
        what, fix = found
        raise DataError(f"{source} {what}", fix)


def _told(start: bytes, kind: str) -> tuple[str, str] | None:
    for begins, what, fix in _STARTS:
        if start.startswith(begins):
            return what, fix
    if start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        return "is compressed with bzip2", "unpack it"
    if start[257:262] == b"ustar" and b"\0" in start[:257]:
        return "is a TAR archive", "unpack it"
    if start.lstrip()[:14].lower().startswith(_PAGE):
        return "is a web page, not data", "download the file itself; sign in if its server requires it"
    if kind != "parquet" and start.startswith(_PARQUET + b"\x15"):
        return "is a Parquet file", "name it .parquet, or set data.format: parquet"
    if start[1:2] == b"\0" and start[:1] in _TEXT_STARTS:
        return "is UTF-16 text, not UTF-8", "save it as UTF-8"
    return None


def check_header(names: Sequence[str], delimiter: str, source: str) -> None:
    """DataError for a first line that cannot name a table's columns. The first may have none: pandas' index."""
    if len(names) == 2 and names[0] == "sep=" and not names[1]:
        raise DataError(f"{source} begins with a line that only Excel reads (sep=)", "remove the first line")
    other = next((sign for sign in _DELIMITERS if len(names) == 1 and sign != delimiter and sign in names[0]), None)
    if other is not None:
        raise DataError(
            f"{source}: its columns are separated by {other!r}, not by {delimiter!r}",
            "set data.format: tsv" if other == "\t" else "save it with commas, or with tabs as .tsv",
        )
    named = names[1:] if names[:1] == [""] else names
    if not all(name.strip() for name in named):
        raise DataError(
            f"{source}: its first line has a column without a name", "give every column its own name in the first line"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{source}: its first line names the column {twice!r} twice",
            "give every column its own name in the first line",
        )


def put_together(path: Path, end: int) -> bool:
    """Whether another Parquet file follows in the same file, after the columns that end at byte `end`.

    The footer found is that of the last file; its offsets count from the start of that file, not of this one.
    """
    seam, before = _PARQUET + _PARQUET, b""
    with path.open("rb") as file:
        file.seek(end)
        while piece := file.read(1 << 20):
            if seam in before + piece:
                return True
            before = piece[-len(seam) :]
    return False
