"""Conditions on many names, in batches that a database accepts.

Uses the driver's own SQL, because SQLAlchemy takes longer to compile thousands of values than the database needs to
answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Connection

BATCH = 5000  # names per statement: far below the limits on bound values (SQLite 32,766, PostgreSQL 65,535)


def pieces(connection: Connection, column: Column[Any], names: Sequence[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """("column is one of ...", values to bind) for each batch of `names`."""
    for start in range(0, len(names), BATCH):
        piece = names[start : start + BATCH]
        if connection.dialect.name == "postgresql":
            yield f"{column.name} = ANY(%s)", (list(piece),)
        else:
            yield f"{column.name} IN ({','.join('?' * len(piece))})", tuple(piece)
