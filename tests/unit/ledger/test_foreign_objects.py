"""What somebody put into a ledger's database is told: objects of their own, and changes of the ledger's."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from s3t_ray.ledger.ledger import Ledger

TRIGGER = """CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM s3t_tombstones; RETURN NULL; END $$"""
POSTGRES = {
    "column note of s3t_run": ("ALTER TABLE s3t_run ADD COLUMN note TEXT DEFAULT 'this is r3'",),
    "column note of s3t_notes": ("CREATE TABLE s3t_notes (note TEXT)",),
    "trigger keep on s3t_tombstones": (
        TRIGGER,
        "CREATE TRIGGER keep AFTER INSERT ON s3t_tombstones EXECUTE FUNCTION gone()",
    ),
    "rule mute on s3t_tombstones": ("CREATE RULE mute AS ON INSERT TO s3t_tombstones DO INSTEAD NOTHING",),
    "policy hide on s3t_deletions": ("CREATE POLICY hide ON s3t_deletions USING (sequence < 0)",),
    "view s3t_running on s3t_running": (
        "ALTER TABLE s3t_running RENAME TO aside",
        "CREATE VIEW s3t_running AS SELECT * FROM aside",
    ),
}
SQLITE = {
    "table notes": ("CREATE TABLE notes (note TEXT)",),
    "column note of s3t_run": ("ALTER TABLE s3t_run ADD COLUMN note TEXT",),
    "trigger keep": ("CREATE TRIGGER keep AFTER INSERT ON s3t_tombstones BEGIN DELETE FROM s3t_tombstones; END",),
    "another definition of table s3t_failures": (
        "DROP TABLE s3t_failures",
        "CREATE TABLE s3t_failures (stage TEXT, attempts INTEGER, error TEXT DEFAULT 'this is r3', at TEXT)",
    ),
    "another definition of index s3t_records_content": (
        "DROP INDEX s3t_records_content",
        "CREATE INDEX s3t_records_content ON s3t_records (content_hmac) WHERE content_hmac = 'this is r3'",
    ),
}
CASES = [("postgres", *case) for case in POSTGRES.items()] + [("sqlite", *case) for case in SQLITE.items()]


@pytest.mark.parametrize(("url", "told", "statements"), CASES, indirect=["url"])
def test_it_is_told(ledger: Ledger, told: str, statements: tuple[str, ...]) -> None:
    assert ledger.contradictions() == ()
    with ledger._database.write() as tx:
        for statement in statements:
            tx.connection.execute(text(statement))
    assert any(f" holds {told}" in line for line in ledger.contradictions())


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_shared_database_may_hold_what_is_not_the_ledgers(ledger: Ledger) -> None:
    with ledger._database.write() as tx:
        tx.connection.execute(text("CREATE TABLE orders (customer TEXT)"))
        tx.connection.execute(text("CREATE VIEW customers AS SELECT customer FROM orders"))
    assert ledger.contradictions() == ()
