"""Finds foreign objects in an SQLite ledger's file: tables, columns, indexes, triggers and views.

In: connections. Out: one line per object. It compares with a newly created ledger, so a new migration needs no change
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from sqlalchemy import Connection, create_engine, text

from s3t_ray.ledger.migrations import migrate

_OBJECTS = text("SELECT type, name, tbl_name, sql FROM sqlite_master")
_COLUMNS = text("SELECT name FROM pragma_table_xinfo(:of)")
_SQLITE = "sqlite_"
"""Prefix of SQLite's own objects."""


def foreign_objects(connection: Connection) -> Iterator[str]:
    """Objects in this ledger's file that a ledger does not have, or that differ from a ledger's."""
    expected = _expected()
    for kind, name, table, said in connection.execute(_OBJECTS).all():
        if str(name).startswith(_SQLITE):
            continue
        if (kind, name, table) not in expected:
            yield f"{kind} {name}, which is not the ledger's: no deletion erases what is in it"
        elif "--" in said or "/*" in said:
            yield f"a remark in the definition of {kind} {name}, which is not the ledger's"
        elif kind == "table":
            columns = frozenset(connection.scalars(_COLUMNS, {"of": name}))
            for column in sorted(columns - expected[kind, name, table]):
                yield f"column {column} of {name}, which is not the ledger's: no deletion erases what is in it"


@cache
def _expected() -> dict[tuple[str, str, str], frozenset[str]]:
    """(type, name, table) of every object of a ledger -> columns, for tables."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        migrate(connection, "")
        found = {
            (kind, name, table): frozenset(connection.scalars(_COLUMNS, {"of": name}) if kind == "table" else ())
            for kind, name, table, _ in connection.execute(_OBJECTS).all()
        }
    engine.dispose()
    return found
