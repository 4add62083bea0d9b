"""The rules for names in a run's storage, and StoreErrors for operating-system errors.

In: relative POSIX paths, operating-system errors. Out: checked paths, StoreErrors with a fix.
Never accesses the disk or the network.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from s3t_ray.errors import StoreError

MARKER: Final = "manifest.json"
"""The file of a published folder that is written last and erased first: while it exists, so do the others."""

TEMPORARY: Final = "tmp-"
"""The prefix of every temporary name. `sweep` erases all of them."""

_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY) + "(.*)-[0-9a-f]{16}", re.DOTALL)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_USERINFO = re.compile(r"(?<=://)[^/@]*@")
_SECRET_QUERY = re.compile(r"\?.*")


def clean_path(path: str) -> str:
    """`path`, if it stays inside the root and does not name a temporary. Raises StoreError otherwise."""
    reason = _why_unsafe(path)
    if reason:
        raise StoreError(
            f"unsafe storage path {path!r}: {reason}",
            "use a relative path of plain names joined by '/', such as 'stages/0123abcd/manifest.json'",
        )
    return path


def clean_folder(prefix: str) -> str:
    """Like `clean_path`, but also allows "" (the entire run) and a trailing slash."""
    return clean_path(prefix.removesuffix("/")) if prefix else ""


def shown(uri: str) -> str:
    """`uri` without user, password and query, for messages and logs."""
    return _SECRET_QUERY.sub("", _USERINFO.sub("", uri)) if "://" in uri else uri


def temporary_name(name: str) -> str:
    """A new temporary name for `name`, or for the name that the temporary `name` belongs to."""
    plain = _TEMPORARY_NAME.fullmatch(name)
    return f"{TEMPORARY}{plain[1] if plain else name}-{secrets.token_hex(8)}"


def is_temporary_of(temporary: str, name: str) -> bool:
    """Whether `temporary_name(name)` could have returned `temporary`."""
    match = _TEMPORARY_NAME.fullmatch(temporary)
    return match is not None and match[1] == name


@contextmanager
def explained(action: str, path: str, uri: str) -> Iterator[None]:
    """Convert any OSError in this context (pyarrow's errors are OSErrors too) to a StoreError with a fix."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {action} {path!r} in {shown(uri)}: {_reason(error)}", _fix(error)) from error


def _why_unsafe(path: str) -> str | None:
    if not path:
        return "it is empty"
    if "\0" in path:
        return "it contains a NUL character"
    if path.startswith("/"):
        return "it is absolute"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode text"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return f"it has a part {name!r}"
        if name.startswith(TEMPORARY):
            return f"names that begin with {TEMPORARY!r} are temporaries"
    return None


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _fix(error: OSError) -> str:
    if error.errno in _FULL:
        return "free disk space (or raise the quota) and run the command again; nothing was changed"
    if error.errno in _FORBIDDEN:
        return "make the storage folder writable for this user, or set storage.uri to one that is"
    if error.errno in _ABSENT or isinstance(error, FileNotFoundError):
        return "check storage.uri; recreate files that someone or another process (a deletion, a sweep) removed"
    return "check the disk, or the network, the credentials and the bucket, and run the command again"
