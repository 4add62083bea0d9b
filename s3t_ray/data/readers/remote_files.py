"""Reads remote data files (s3://, gs://, hf:// and https://): downloads each file, reads it, and deletes it again.

In: `data.path` as the URI of a file, a folder or a pattern. Out: rows, as for local files. The clients find their
credentials themselves (the environment, the instance, `hf auth login`). None is taken from the URI or stored. Keeps one
chunk in memory, and one file at a time on disk.
"""

from __future__ import annotations

import errno
import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from s3t_ray.config.schema import Data
from s3t_ray.data.readers.formats import RawRow, file_format, file_rows
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.readers.splits import is_beside_data, of_another_split, of_split
from s3t_ray.errors import DataError

_PIECE_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60
Fetch = Callable[[str, Path], None]
"""Copies the file with a name to a path."""


def remote_rows(data: Data, reading: Reading) -> Iterator[RawRow]:
    """Every row at the URI `data.path`. Raises DataError if it cannot be reached or names no data file."""
    names, fetch = _found(data.path, data.split, reading)
    with tempfile.TemporaryDirectory(prefix="s3t-data-") as folder:
        for name in names:
            copy = Path(folder) / "file"
            fetch(name, copy)
            yield from reading.noted(shown(name), file_rows(copy, shown(name), data))
            copy.unlink()


def _found(uri: str, split: str, reading: Reading) -> tuple[list[str], Fetch]:
    scheme = uri.split("://", 1)[0]
    if scheme in ("https", "http"):
        return [uri], _fetch_http
    listed, fetch = _hub(uri) if scheme == "hf" else _bucket(uri)
    if listed == [uri]:
        return listed, fetch
    beside = [name for name in listed if is_beside_data(PurePosixPath(name).name)]
    kept = [name for name in listed if file_format(name) is not None and name not in beside]
    reading.skipped += [
        f"{shown(name)} ({'not records, judging by its name' if name in beside else 'not a data file'})"
        for name in listed
        if name not in kept
    ]
    if not kept:
        raise DataError(f"data.path = {shown(uri)}: no data file is there", "use a file, or a folder with data files")
    start = uri.rstrip("/") + "/"
    inside = {name: name.removeprefix(start) for name in kept}
    chosen = of_split(list(inside.values()), split, uri)
    reading.skipped += [f"{shown(name)} (not of the split {split})" for name in kept if inside[name] not in chosen]
    reading.other_split = of_another_split(chosen, split)
    return [name for name in kept if inside[name] in chosen], fetch


def _bucket(uri: str) -> tuple[list[str], Fetch]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        start, pattern = _pattern(uri)
        filesystem, base = fs.FileSystem.from_uri(start)
        query = f"?{urlsplit(uri).query}" if urlsplit(uri).query else ""
        root = start.removesuffix(query).removesuffix("/").removesuffix(base.rstrip("/"))
        info = filesystem.get_file_info(base.rstrip("/"))
        if info.type == fs.FileType.File:
            return [uri], lambda _, copy: _copy(filesystem, base, copy, uri)
        found = filesystem.get_file_info(fs.FileSelector(base.rstrip("/"), recursive=True))
        paths = sorted(each.path for each in found if each.type == fs.FileType.File)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreachable(uri, error) from error
    names = [f"{root}{path}" for path in paths if pattern is None or fnmatchcase(path, pattern)]
    if not names:
        raise DataError(f"data.path = {shown(uri)}: nothing is there", "correct the URI")
    return names, lambda name, copy: _copy(filesystem, name.removeprefix(root), copy, uri)


def _copy(filesystem: Any, path: str, copy: Path, uri: str) -> None:
    try:
        # By default, pyarrow decompresses files named .gz, and `file_rows` would decompress them again.
        with filesystem.open_input_stream(path, compression=None) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, _PIECE_BYTES)
    except OSError as error:
        raise _unreachable(uri, error) from error


def _hub(uri: str) -> tuple[list[str], Fetch]:
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files = HfFileSystem()
        path = uri.removeprefix("hf://")
        if files.isfile(path):
            found = [path]
        else:
            found = sorted(files.glob(path) if set(path) & set("*?[") else files.find(path))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise _unreachable(uri, error) from error

    def fetch(name: str, copy: Path) -> None:
        try:
            files.get_file(name.removeprefix("hf://"), str(copy))
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise _unreachable(name, error) from error

    return [f"hf://{each}" for each in found], fetch


def _fetch_http(uri: str, copy: Path) -> None:
    try:
        with urllib.request.urlopen(uri, timeout=_TIMEOUT_SECONDS) as answer, copy.open("wb") as target:
            shutil.copyfileobj(answer, target, _PIECE_BYTES)
            told = answer.headers.get("Content-Length")
        if told is not None and copy.stat().st_size != int(told):
            raise DataError(
                f"{shown(uri)} was truncated after {copy.stat().st_size:,} of {int(told):,} bytes", "try again"
            )
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _unreachable(uri, error) from error


def _pattern(uri: str) -> tuple[str, str | None]:
    """The folder to list, and the pattern for paths without a scheme (None if the URI is not a pattern)."""
    path, _, query = uri.partition("?")
    if not set(path) & set("*["):
        return uri, None
    parts = PurePosixPath(path.split("://", 1)[1]).parts
    first = next(index for index, part in enumerate(parts) if set(part) & set("*["))
    start = f"{uri.split('://', 1)[0]}://{'/'.join(parts[:first])}" + (f"?{query}" if query else "")
    return start, "/".join((parts[0].rpartition("@")[2], *parts[1:]))


def shown(uri: str) -> str:
    """`uri` for messages and logs: without its query and the user info before @, which can contain secrets."""
    scheme, separator, rest = uri.split("?", 1)[0].partition("://")
    if not separator:
        return unquote(uri)
    place, slash, path = rest.partition("/")
    # An @ after the host is a revision, as in hf://datasets/owner/name@v1.
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def _unreachable(uri: str, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"{shown(uri)} does not fit into {tempfile.gettempdir()}: {error.strerror}",
            "free space there, or set TMPDIR to a folder with more",
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(
        f"data.path = {shown(uri)} cannot be read: {reason}",
        "check the address, your network and your permission to read it",
    )
