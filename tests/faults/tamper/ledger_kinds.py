"""Tamperings with the ledger alone: every column of every table, every row taken out or added, and whole stories."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from s3t_ray.ledger.migrations import LATEST
from s3t_ray.ledger.tables import METADATA

Apply = Callable[[Path], bool]
"""Tampers with the run at this storage root; False: there is nothing to tamper with at this moment."""

SKIPPED = {
    "s3t_schema",  # a version that is not known is refused on its own
    *("s3t_failures", "s3t_running"),  # nothing failed, nothing trains
}
"""Tables without rows in this run."""


def statements(*texts: str) -> Apply:
    """Run these statements behind the run's back; the first must hit a row."""

    def apply(root: Path) -> bool:
        connection = sqlite3.connect(root / "ledger.db", isolation_level=None)
        try:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            if connection.execute(texts[0]).rowcount == 0:
                return False
            for text in texts[1:]:
                connection.execute(text)
        finally:
            connection.close()
        return True

    return apply


def foreign_table(root: Path) -> bool:
    """A table that no version of ours makes."""
    connection = sqlite3.connect(root / "ledger.db", isolation_level=None)
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.execute("INSERT INTO notes VALUES ('this is r3')")
    connection.close()
    return True


def schema(*texts: str) -> Apply:
    """Run these statements, which change no row, behind the run's back."""

    def apply(root: Path) -> bool:
        connection = sqlite3.connect(root / "ledger.db", isolation_level=None)
        for text in texts:
            connection.execute(text)
        connection.close()
        return True

    return apply


def appended_bytes(root: Path) -> bool:
    """A record's text after the end of the database's file."""
    with (root / "ledger.db").open("ab") as file:
        file.write(b"this is r3")
    return True


def kinds() -> Iterator[tuple[str, Apply]]:
    """(name, what is done)."""
    for table in METADATA.sorted_tables:
        if table.name in SKIPPED:
            continue
        keys = [column.name for column in table.primary_key]
        last = _LAST.get(table.name, f"rowid = (SELECT max(rowid) FROM {table.name})")
        for column in table.columns:
            if column.name in keys and table.name != "s3t_records":
                continue
            yield f"{table.name}.{column.name} changed", statements(_change(table.name, column.name, last))
        yield f"{table.name}: a row taken out", statements(f"DELETE FROM {table.name} WHERE {last}")
    yield from STORIES.items()
    yield from SCHEMA.items()
    yield "bytes after the end of the ledger's file", appended_bytes


def _change(table: str, column: str, which: str) -> str:
    value = f"""CASE typeof({column}) WHEN 'integer' THEN {column} + 1 WHEN 'real' THEN {column} + 1
        WHEN 'blob' THEN zeroblob(length({column})) WHEN 'null' THEN {_FILL.get((table, column), "'x'")}
        ELSE {column} || 'x' END"""
    value = _OTHER.get((table, column), value)
    return f"UPDATE {table} SET {column} = {value} WHERE {which}"


_LAST = {  # tables without row ids
    "s3t_records": "id_hmac = (SELECT max(id_hmac) FROM s3t_records WHERE deletion IS NULL)",
    "s3t_tombstones": "id_hmac = (SELECT max(id_hmac) FROM s3t_tombstones)",
    "s3t_bands": "(key, record) = (SELECT max(key), record FROM s3t_bands)",
}
_FILL = {
    ("s3t_records", "deletion"): "(SELECT min(sequence) FROM s3t_deletions)",
    ("s3t_records", "subject_hmac"): "zeroblob(32)",
    ("s3t_stages", "pruned_by"): "(SELECT min(sequence) FROM s3t_deletions)",
    ("s3t_events", "shard"): "7",
    ("s3t_log", "deletion"): "(SELECT min(sequence) FROM s3t_deletions)",
}
_OTHER = {
    ("s3t_deletions", "state"): "CASE state WHEN 'restored' THEN 'purged' ELSE 'pruned' END",
    ("s3t_stages", "state"): "CASE state WHEN 'live' THEN 'stale' ELSE 'live' END",
    ("s3t_events", "kind"): "CASE kind WHEN 'depths' THEN 'exported' ELSE 'depths' END",
    ("s3t_log", "kind"): "CASE kind WHEN 'receipt' THEN 'interim' ELSE 'receipt' END",
    ("s3t_stages", "slices"): "'[0]'",
    ("s3t_stages", "ancestors"): "'[]'",
}

LIVE = "(SELECT max(id) FROM s3t_stages WHERE state = 'live')"
NEWEST = "(SELECT max(sequence) FROM s3t_deletions)"
OLDEST = "(SELECT min(sequence) FROM s3t_deletions)"
FIRST_PERSON = "(SELECT min(subject_hmac) FROM s3t_records WHERE deletion IS NULL)"
LAST_PERSON = FIRST_PERSON.replace("min", "max")
FIRST_ADAPTER = "(SELECT min(adapter_sha256) FROM s3t_stages WHERE state = 'live')"
LAST_ADAPTER = FIRST_ADAPTER.replace("min", "max")
LAST_SKETCH = "(SELECT max(record) FROM s3t_sketches)"
TWO_SKETCHES = "((SELECT min(record) FROM s3t_sketches), (SELECT max(record) FROM s3t_sketches))"
TWO = "SELECT id_hmac FROM s3t_records WHERE deletion IS NULL AND digest IS NOT NULL ORDER BY id_hmac"

SCHEMA: dict[str, Apply] = {
    "a column with a record's text": schema("ALTER TABLE s3t_run ADD COLUMN note TEXT DEFAULT 'this is r3'"),
    "a trigger that takes tombstones away": schema(
        "CREATE TRIGGER keep AFTER INSERT ON s3t_tombstones BEGIN DELETE FROM s3t_tombstones; END"
    ),
    "a view": schema("CREATE VIEW people AS SELECT subject_hmac FROM s3t_records"),
    "an index that bears a record's text": schema('CREATE INDEX "this is r3" ON s3t_run (name)'),
    "a remark in a table's definition": schema(
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = sql || ' /* this is r3 */' WHERE name = 's3t_run'",
    ),
    "the schema's version is set back": schema(f"DELETE FROM s3t_schema WHERE version = {LATEST}"),
    "the schema's version is set ahead": schema(f"UPDATE s3t_schema SET version = 99 WHERE version = {LATEST}"),
}

STORIES: dict[str, Apply] = {
    "two people swap their subject": statements(
        f"""UPDATE s3t_records SET subject_hmac = CASE subject_hmac WHEN {FIRST_PERSON} THEN {LAST_PERSON}
        ELSE {FIRST_PERSON} END WHERE deletion IS NULL AND subject_hmac IN ({FIRST_PERSON}, {LAST_PERSON})"""
    ),
    "a record belongs to nobody": statements(
        f"UPDATE s3t_records SET subject_hmac = NULL WHERE id_hmac = ({TWO} LIMIT 1)"
    ),
    "a purged record gets another subject": statements(
        "UPDATE s3t_records SET subject_hmac = zeroblob(32) WHERE deletion IS NOT NULL"
    ),
    "a purged record gets another id": statements(
        """UPDATE s3t_records SET id_hmac = zeroblob(32) WHERE id_hmac =
        (SELECT max(id_hmac) FROM s3t_records WHERE deletion IS NOT NULL)"""
    ),
    "all seals are taken off": statements("UPDATE s3t_records SET seal = NULL", "UPDATE s3t_run SET seal = NULL"),
    "all seals and the log's beginning are taken off": statements(
        "UPDATE s3t_run SET seal = NULL", "UPDATE s3t_records SET seal = NULL", "DELETE FROM s3t_log WHERE kind = 'run'"
    ),
    "the log is emptied": statements("DELETE FROM s3t_log"),
    "the newest entry of the log is dropped": statements(
        "DELETE FROM s3t_log WHERE sequence = (SELECT max(sequence) FROM s3t_log)"
    ),
    "receipts are dropped": statements("DELETE FROM s3t_log WHERE kind = 'receipt'"),
    "interim certificates are dropped": statements("DELETE FROM s3t_log WHERE kind = 'interim'"),
    "a field of every entry": statements("UPDATE s3t_log SET entry = replace(entry, '\"records\":', '\"records\":1')"),
    "an extra field of an entry": statements("UPDATE s3t_log SET entry = '{\"x\":1,' || substr(entry, 2)"),
    "a receipt is given another time": statements(
        "UPDATE s3t_log SET entry = replace(entry, 'accepted_at\":\"2', 'accepted_at\":\"3') WHERE kind = 'receipt'"
    ),
    "accepted_at of the newest deletion": statements(
        f"UPDATE s3t_deletions SET accepted_at = '2001-01-01T00:00:00.000000+00:00' WHERE sequence = {NEWEST}"
    ),
    "a pending deletion is undone, with its sums, history and log": statements(
        f"DELETE FROM s3t_tombstones WHERE deletion = {NEWEST}",
        f"UPDATE s3t_slices SET digest = (SELECT digest_before FROM s3t_hits h WHERE h.deletion = {NEWEST} AND "
        "h.shard = s3t_slices.shard AND h.slice = s3t_slices.slice), records = records + 1 WHERE (shard, slice) IN "
        f"(SELECT shard, slice FROM s3t_hits WHERE deletion = {NEWEST})",
        f"DELETE FROM s3t_pruned WHERE deletion = {NEWEST}",
        f"DELETE FROM s3t_hits WHERE deletion = {NEWEST}",
        f"UPDATE s3t_stages SET state = 'live', pruned_by = NULL WHERE pruned_by = {NEWEST}",
        f"DELETE FROM s3t_log WHERE deletion = {NEWEST}",
        f"DELETE FROM s3t_events WHERE sequence > {NEWEST}",
        f"UPDATE s3t_head SET sequence = {NEWEST} - 1",
        f"DELETE FROM s3t_deletions WHERE sequence = {NEWEST}",
    ),
    "a forged pruned, with its line of history": statements(
        f"UPDATE s3t_deletions SET state = 'pruned', pruned_at = accepted_at WHERE sequence = {NEWEST} "
        "AND state = 'accepted'",
        "INSERT INTO s3t_events SELECT (SELECT sequence FROM s3t_head) + 1, max(at), 'deletion_pruned', NULL, "
        f"(SELECT json_object('request', request_id) FROM s3t_deletions WHERE sequence = {NEWEST}) FROM s3t_events",
        "UPDATE s3t_head SET sequence = sequence + 1",
    ),
    "a stage is forged": statements(
        "INSERT INTO s3t_stages SELECT 'zz', shard, slices, ancestors, 'live', adapter_sha256, accepted_at, accepted, "
        f"NULL FROM s3t_stages WHERE id = {LIVE}"
    ),
    "two adapters of the ledger are swapped": statements(
        f"""UPDATE s3t_stages SET adapter_sha256 = CASE adapter_sha256 WHEN {FIRST_ADAPTER} THEN {LAST_ADAPTER}
        ELSE {FIRST_ADAPTER} END WHERE state = 'live' AND adapter_sha256 IN ({FIRST_ADAPTER}, {LAST_ADAPTER})"""
    ),
    "a purged stage is live again": statements("UPDATE s3t_stages SET state = 'live' WHERE state = 'purged'"),
    "a foreign table with a record's text": foreign_table,
    "a record's text among the failures": statements(
        "INSERT INTO s3t_failures VALUES ('purge 0', 1, 'this is r3', '2030-01-01')"
    ),
    "a retained record is taken out with its counts": statements(
        f"DELETE FROM s3t_records WHERE id_hmac = ({TWO} LIMIT 1)", "UPDATE s3t_slices SET records = records - 1"
    ),
    "the times of the history run backwards": statements(
        "UPDATE s3t_events SET at = '2001-01-01T00:00:00.000000+00:00' WHERE kind = 'stage_accepted'"
    ),
    "an export is hidden, with its line of history": statements(
        "DELETE FROM s3t_exports", "UPDATE s3t_events SET kind = 'depths' WHERE kind = 'exported'"
    ),
    "an export is made up, with its line of history": statements(
        "INSERT INTO s3t_exports SELECT '/elsewhere', 0, '[\"x\"]', '[\"adapter_model.safetensors\"]', max(at) "
        "FROM s3t_events",
        "INSERT INTO s3t_events SELECT (SELECT sequence FROM s3t_head) + 1, max(at), 'exported', 0, "
        '\'{"folder":"/elsewhere"}\' FROM s3t_events',
        "UPDATE s3t_head SET sequence = sequence + 1",
    ),
    "two purged records swap their deletions": statements(
        f"UPDATE s3t_records SET deletion = CASE deletion WHEN {NEWEST} THEN {OLDEST} ELSE {NEWEST} END "
        f"WHERE deletion IS NOT NULL AND {NEWEST} > {OLDEST}"
    ),
    "a retained record is said to be purged, and a purged one retained": statements(
        f"UPDATE s3t_records SET deletion = {OLDEST} WHERE id_hmac = ({TWO} LIMIT 1)",
        "UPDATE s3t_records SET deletion = NULL WHERE digest IS NULL",
    ),
    "the seal of a purge is taken off": statements("UPDATE s3t_hits SET seal = NULL WHERE seal IS NOT NULL"),
    "an export's entry of the log is dropped": statements(
        "DELETE FROM s3t_log WHERE kind = 'export'", "DELETE FROM s3t_exports"
    ),
    "an export is said to be erased, with its line of history": statements(
        "DELETE FROM s3t_exports",
        "INSERT INTO s3t_events SELECT (SELECT sequence FROM s3t_head) + 1, max(at), 'export_erased', 0, "
        "(SELECT detail FROM s3t_events WHERE kind = 'exported') FROM s3t_events",
        "UPDATE s3t_head SET sequence = sequence + 1",
    ),
    "the ledger's clock is set an hour ahead": statements(
        "UPDATE s3t_head SET at = strftime('%Y-%m-%dT%H:%M:%S', at, '+1 hour') || '.000000+00:00'"
    ),
    "the ledger's clock is set five minutes ahead": statements(
        "UPDATE s3t_head SET at = strftime('%Y-%m-%dT%H:%M:%S', at, '+5 minutes') || '.000000+00:00'"
    ),
    "two records swap their sketches": statements(
        f"UPDATE s3t_sketches SET signature = (SELECT signature FROM s3t_sketches AS other WHERE other.record != "
        f"s3t_sketches.record AND other.record IN {TWO_SKETCHES}), seal = (SELECT seal FROM s3t_sketches AS other "
        f"WHERE other.record != s3t_sketches.record AND other.record IN {TWO_SKETCHES}) WHERE record IN {TWO_SKETCHES}"
    ),
    "a record's sketch is taken out with its bands": statements(
        f"DELETE FROM s3t_bands WHERE record = {LAST_SKETCH}", f"DELETE FROM s3t_sketches WHERE record = {LAST_SKETCH}"
    ),
    "all sketches are taken out, with how they were made": statements(
        "DELETE FROM s3t_sketching", "DELETE FROM s3t_sketches", "DELETE FROM s3t_bands"
    ),
    "a foreign band leads to a record": statements("INSERT INTO s3t_bands VALUES (7, 7)"),
    "bands are so long that only equal records meet": statements(
        "UPDATE s3t_sketching SET bands = 1, rows_a_band = permutations", "DELETE FROM s3t_bands"
    ),
    "the ledger's clock is set far ahead": statements("UPDATE s3t_head SET at = '9999-01-01T00:00:00.000000+00:00'"),
}
