"""Which records and subjects a deletion names: options and files of ids, read verbatim.

A file has one id per line, in UTF-8 (with or without a byte order mark); `-` is standard input. Only the
line ending is removed: spaces inside, before and after an id are part of it. Blank lines are ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from s3t_ray.data.unicode_text import is_unicode
from s3t_ray.errors import DataError

STDIN = "-"


def named_ids(ids: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """Ids of the options and of the files, in the order given, each once.

    Raises DataError for a missing or unreadable file, one that is not UTF-8, or one that names no record.
    """
    named = list(ids)
    for name in files:
        found = parse_ids(_read(name), _origin(name))
        if not found:
            raise DataError(f"{_origin(name)} names no record", "write one id per line, or leave the file out")
        named.extend(found)
    return unique(named)


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """`names` in order, each once. Raises DataError for one that is not valid Unicode."""
    merged = tuple(dict.fromkeys(names))
    for name in merged:
        if not is_unicode(name):
            raise DataError(f"id {name!r} is not valid UTF-8", "set a UTF-8 locale, or give the ids by --ids-file")
    return merged


def parse_ids(content: bytes, origin: str) -> list[str]:
    """Ids in the bytes of a file; `origin` names it in errors."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{origin}, line {line}: not UTF-8 ({error.reason})", "save the file as UTF-8") from error
    # Not splitlines(): ids may hold the exotic line separators that it also splits at.
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip()]


def _origin(name: str) -> str:
    return "standard input" if name == STDIN else f"ids file {name}"


def _read(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"ids file {name} does not exist", "check the path; `-` reads standard input") from error
    except OSError as error:
        raise DataError(f"ids file {name} cannot be read: {error.strerror}", "give a readable text file") from error
