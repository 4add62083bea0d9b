"""Conditions on many names at once, in pieces that a database takes.

In the driver's own SQL: compiling a list of thousands of values takes SQLAlchemy longer than the
database needs to answer it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Connection

BATCH = 5000  # names a statement: far below the limits on bound values (SQLite 32,766, PostgreSQL 65,535)


def pieces(connection: Connection, column: Column[Any], names: Sequence[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """("column is one of ...", the values to bind), for a piece of `names` at a time."""
    for start in range(0, len(names), BATCH):
        piece = names[start : start + BATCH]
        if connection.dialect.name == "postgresql":
            yield f"{column.name} = ANY(%s)", (list(piece),)
        else:
            yield f"{column.name} IN ({','.join('?' * len(piece))})", tuple(piece)
