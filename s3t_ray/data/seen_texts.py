"""Detects repeated texts in constant memory.

In: texts, one by one. Out: whether each is new. Digests that do not fit in the cache go to a private
temporary SQLite file, which disappears when it is closed. Never stores a text, only its digest.
"""

from __future__ import annotations

import hashlib
import sqlite3
from types import TracebackType

_CACHE_KIB = 32 << 10
_DIGEST_BYTES = 16


class Seen:
    """A set that only grows; use it as a context manager."""

    def __init__(self) -> None:
        # An empty name makes SQLite use a temporary file. A generator can end in a different thread
        # from the one it started in.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._connection.execute("BEGIN")  # never committed, because nothing has to be kept

    def add(self, text: str) -> bool:
        """Add `text`. Returns whether it is new."""
        digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
        return self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Seen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
