"""Older ledgers are brought up to date with all they hold, and the tables are those the queries name."""

from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, Double, Engine, LargeBinary, Text, create_engine, inspect, text

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import migrations
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.tables import METADATA
from s3t_ray.ledger.values import DeletionState, ExportedFolder
from tests.unit.ledger.certify import opened
from tests.unit.ledger.world import name as hmac_of

V1_ROWS = (
    "INSERT INTO s3t_run VALUES (1, 'tiny', 'r', '{}', 'b', 1, 1, 'k')",
    "INSERT INTO s3t_deletions VALUES (7, 'req', 'digest', 'purged', 3, 1, 2, 'then', 'later', 'last')",
    "INSERT INTO s3t_events VALUES (8, 'then', 'deletion_purged', 0, '{}')",
    "UPDATE s3t_head SET sequence = 8, epoch = 4, holder = 'old', beats = 2",
)


@pytest.fixture
def engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def test_version_1_keeps_its_data(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.migrate(connection, "then", target=1)
        for row in V1_ROWS:
            connection.execute(text(row))
        assert not inspect(connection).has_table("s3t_certificates")
    with Ledger.open(url) as ledger:
        run = ledger.run()
        assert run is not None
        assert (run.name, run.key_check) == ("tiny", "k")
        (deletion,) = ledger.deletions()
        receipt = deletion.receipt
        assert (receipt.request_id, receipt.records, receipt.already_deleted, receipt.unknown) == ("req", 3, 1, 2)
        assert deletion.state is DeletionState.PURGED
        assert deletion.times.purged == "last"
        assert deletion.times.restored is None
        assert ledger.lease() == (4, "old", 2)
        assert ledger.add_event("note", None, {}).seq == 9
        assert (ledger.certificates(), ledger.failures()) == ((), ())
    with engine.connect() as connection:
        assert migrations.schema_version(connection) == migrations.LATEST
        rows = connection.execute(text("SELECT version FROM s3t_schema ORDER BY version")).scalars().all()
    assert rows == list(range(1, migrations.LATEST + 1))
    engine.dispose()


def test_version_4_keeps_its_tombstones(url: str, engine: Engine) -> None:
    """Of three records one is retained, one deleted and not purged, one purged."""
    records = {hmac_of("id", word): word for word in ("retained", "deleted", "purged")}
    with engine.begin() as connection:
        migrations.migrate(connection, "then", target=4)
        connection.execute(text(V1_ROWS[0]))
        for sequence, state in ((7, "purged"), (8, "accepted")):
            connection.execute(
                text("INSERT INTO s3t_deletions VALUES (:n, :r, :r, :s, 1, 0, 0, 'then', NULL, NULL, NULL)"),
                {"n": sequence, "r": f"request {sequence}", "s": state},
            )
        for identity, word in records.items():
            digest = None if word == "purged" else identity
            deletion = {"deleted": 8, "purged": 7}.get(word)
            connection.execute(
                text("INSERT INTO s3t_records VALUES (:id, NULL, :digest, :digest, 0, 0, :deletion)"),
                {"id": identity, "digest": digest, "deletion": deletion},
            )
    with Ledger.open(url) as ledger:
        gone = {records[identity]: state.deleted for identity, state in ledger.record_states(list(records)).items()}
        assert gone == {"retained": False, "deleted": True, "purged": True}
        preview = ledger.preview(list(records))
        assert (preview.records, preview.already_deleted) == (1, 2)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT shard, slice, id_hmac, deletion FROM s3t_tombstones")).all()
        assert [tuple(row) for row in rows] == [(0, 0, hmac_of("id", "deleted"), 8)]
        assert connection.scalar(text("SELECT deletion FROM s3t_records WHERE digest IS NULL")) == 7
    engine.dispose()


def test_an_upgrade_that_fails_changes_nothing(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as connection:
        migrations.migrate(connection, "then", target=1)
    good = migrations.MIGRATIONS
    broken = (*good[1], "INSERT INTO s3t_nowhere VALUES (1)")
    monkeypatch.setattr(migrations, "MIGRATIONS", (good[0], broken))
    with pytest.raises(LedgerError, match="s3t_nowhere"):
        Ledger.open(url)
    with engine.connect() as connection:
        assert migrations.schema_version(connection) == 1
        assert not inspect(connection).has_table("s3t_certificates")
    monkeypatch.setattr(migrations, "MIGRATIONS", good)
    Ledger.open(url).close()
    engine.dispose()


def test_tables_are_those_of_the_queries(empty: Ledger, engine: Engine) -> None:
    found = inspect(engine)
    assert set(found.get_table_names()) == set(METADATA.tables)
    families = {"INTEGER": BigInteger, "BIGINT": BigInteger, "TEXT": Text, "BLOB": LargeBinary, "BYTEA": LargeBinary}
    families |= {"REAL": Double, "DOUBLE PRECISION": Double}
    for name, table in METADATA.tables.items():
        columns = {column["name"]: families[str(column["type"])] for column in found.get_columns(name)}
        assert columns == {column.name: type(column.type) for column in table.columns}, name
        key = found.get_pk_constraint(name)["constrained_columns"]
        assert key == [column.name for column in table.primary_key], name
    engine.dispose()


def test_version_5_keeps_its_exports(url: str, engine: Engine) -> None:
    """They were told by events: of each folder the newest counts."""
    told = [
        ("exported", 0, '{"files":["a","b"],"folder":"/out","stages":["s1"]}'),
        ("exported", 1, '{"files":["a"],"folder":"/gone","stages":["s1"]}'),
        ("export_erased", None, '{"folder":"/gone"}'),
        ("exported", 2, '{"files":["a"],"folder":"/again","stages":["s1"]}'),
        ("export_erased", None, '{"folder":"/again"}'),
        ("exported", 3, '{"files":["ä"],"folder":"/again","stages":["s2","s3"]}'),
        ("exported", 0, '{"files":["c"],"folder":"/out","stages":["s1","s4"]}'),
        ("depths", 0, '{"depths":[1]}'),
    ]
    with engine.begin() as connection:
        migrations.migrate(connection, "then", target=5)
        connection.execute(text(V1_ROWS[0]))
        for number, (kind, shard, detail) in enumerate(told, start=9):
            connection.execute(
                text("INSERT INTO s3t_events VALUES (:n, 'then', :kind, :shard, :detail)"),
                {"n": number, "kind": kind, "shard": shard, "detail": detail},
            )
        connection.execute(text("UPDATE s3t_head SET sequence = 20"))
    with opened(url) as ledger:
        assert ledger.exports.all() == (
            ExportedFolder("/again", ("s2", "s3"), ("ä",)),
            ExportedFolder("/out", ("s1", "s4"), ("c",)),
        )
        ledger.exports.forget("/out")
        ledger.exports.forget("/out")
        ledger.exports.note(1, ExportedFolder("/again", ("s9",), ("a",)))
        assert ledger.exports.all() == (ExportedFolder("/again", ("s9",), ("a",)),)
        assert [event.kind for event in ledger.events(after=20)] == ["export_erased", "exported"]
    engine.dispose()
