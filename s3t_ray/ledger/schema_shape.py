"""What is in a ledger's database beside the ledger: objects of others, and what was changed in the ledger's own.

In: connections. Out: a line for each. SQLite: the whole file, against a ledger made afresh, so a new migration needs
nothing here. PostgreSQL: the ledger's tables alone, since a database may be shared with others.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from sqlalchemy import Connection, create_engine, text

from s3t_ray.ledger.migrations import migrate
from s3t_ray.ledger.tables import METADATA

_OBJECTS = text("SELECT type, name, tbl_name, sql FROM sqlite_master")
_COLUMNS = text("SELECT name FROM pragma_table_xinfo(:of)")
_SQLITE = "sqlite_"
"""How SQLite names what it keeps for itself."""
_KEPT = "no deletion erases what is in it"
_HERE = r"= current_schema() AND {} LIKE 's3t\_%'"
_POSTGRES_COLUMNS = text(
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema "
    f"{_HERE.format('table_name')} ORDER BY 1, 2"
)
_POSTGRES_OTHERS = text(
    "SELECT 'trigger', tgname, relname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid "
    f"JOIN pg_namespace n ON n.oid = relnamespace WHERE NOT tgisinternal AND nspname {_HERE.format('relname')} "
    f"UNION ALL SELECT 'rule', rulename, tablename FROM pg_rules WHERE schemaname {_HERE.format('tablename')} "
    f"UNION ALL SELECT 'policy', policyname, tablename FROM pg_policies WHERE schemaname {_HERE.format('tablename')} "
    "UNION ALL SELECT 'view', relname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
    f"WHERE relkind IN ('v', 'm') AND nspname {_HERE.format('relname')} ORDER BY 1, 2, 3"
)


def foreign_objects(connection: Connection) -> Iterator[str]:
    """What this ledger's database has and a ledger has not, or has otherwise."""
    if connection.dialect.name == "postgresql":
        yield from _beside_postgres(connection)
        return
    expected = _expected()
    for kind, name, table, said in connection.execute(_OBJECTS).all():
        if str(name).startswith(_SQLITE):
            continue
        if (kind, name, table) not in expected:
            yield f"{kind} {name}, which is not the ledger's: {_KEPT}"
            continue
        columns, definition = expected[kind, name, table]
        if kind == "table" and (others := frozenset(connection.scalars(_COLUMNS, {"of": name})) - columns):
            yield from (f"column {column} of {name}, which is not the ledger's: {_KEPT}" for column in sorted(others))
        elif _words(said) != definition:
            yield f"another definition of {kind} {name} than a ledger has: {_KEPT}"


def _beside_postgres(connection: Connection) -> Iterator[str]:
    for table, column in connection.execute(_POSTGRES_COLUMNS).all():
        known = METADATA.tables.get(table)
        if known is None or column not in known.columns:
            yield f"column {column} of {table}, which is not the ledger's: {_KEPT}"
    for kind, name, table in connection.execute(_POSTGRES_OTHERS).all():
        yield f"{kind} {name} on {table}, which is not the ledger's: it can change or hide what is written"


@cache
def _expected() -> dict[tuple[str, str, str], tuple[frozenset[str], str]]:
    """(type, name, table) of all that a ledger has -> the columns, of a table, and the definition."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        migrate(connection, "")
        found = {
            (kind, name, table): (
                frozenset(connection.scalars(_COLUMNS, {"of": name}) if kind == "table" else ()),
                _words(said),
            )
            for kind, name, table, said in connection.execute(_OBJECTS).all()
        }
    engine.dispose()
    return found


def _words(definition: str | None) -> str:
    """Whatever the lines of a migration are broken like."""
    return " ".join((definition or "").split())
