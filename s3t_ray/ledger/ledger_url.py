"""The location of a ledger: its URL, and the file that it names."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.values import NoLedger


def parse_url(address: str) -> URL:
    """The URL with our driver. LedgerError: it is invalid, or cannot hold a ledger."""
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise LedgerError(
            "the ledger's URL cannot be read", "use sqlite:///<path> or postgresql://user@host/name"
        ) from error
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise LedgerError(f"a ledger cannot use {backend}", "use sqlite:///<path> or postgresql://user@host/name")
    if not url.database or url.database == ":memory:" or url.query:
        raise LedgerError(
            f"{shown(url)} names no file on disk, and a ledger must survive a crash", "use sqlite:///<path>"
        )
    return url.set(drivername="sqlite+pysqlite")


def require_file(url: URL, create: bool) -> None:
    """Durably create the empty file, or refuse: SQLite itself would create one at any mistyped path."""
    path = Path(str(url.database))
    if path.is_file():
        return
    if not create or path.exists():
        raise NoLedger(f"there is no ledger at {path}", "check storage.uri and ledger.url, or start the run first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be created: {error.strerror}", "choose a folder this user can write to"
        ) from error


def shown(url: URL) -> str:
    """The URL for messages, without the password."""
    return url.render_as_string(hide_password=True)
