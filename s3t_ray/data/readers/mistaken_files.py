"""Recognizes files that do not match their names: archives, web pages, pointers, text in another encoding.

In: the first bytes of a file, as the reader of text or Parquet gets them. Out: an error that names the actual format
and the fix, instead of "line 1: not JSON" for an archive. Pure. Never refuses a file that the reader could read.
"""

from __future__ import annotations

from s3t_ray.errors import DataError

_POINTER = b"version https://git-lfs.github.com/"
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is compressed with gzip", "end its name in .gz, or unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "end its name in .zst, or unpack it"),
    (b"\xfd7zXZ\x00", "is compressed with xz", "unpack it"),
    (b"PK\x03\x04", "is a ZIP archive, or an Excel workbook", "unpack it; save a workbook as CSV (UTF-8)"),
    (b"ARROW1\x00\x00", "is an Arrow file", "name the folder that save_to_disk wrote, or convert it to Parquet"),
    (b"SQLite format 3\x00", "is an SQLite database", "write its table to a CSV or Parquet file"),
    (_POINTER, "is a Git LFS pointer, not the file itself", "run `git lfs install && git lfs pull` in its folder"),
    (b"\xff\xfe", "is UTF-16 text, not UTF-8", "save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text, not UTF-8", "save it as UTF-8"),
)
_PARQUET = b"PAR1"
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
        return "is a web page, not data", "download the file itself; sign in if its server requires that"
    if kind != "parquet" and start.startswith(_PARQUET + b"\x15"):
        return "is a Parquet file", "end its name in .parquet, or set data.format: parquet"
    return None
