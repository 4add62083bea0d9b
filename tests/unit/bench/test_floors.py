"""The bare database: durable rows in its own tables, which are dropped afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from benchlib.floors import bare_database

from s3t_ray.errors import ConfigError
from s3t_ray.ledger.ledger import Ledger
from tests.postgres import fresh_postgres, postgres_server

__all__ = ["fresh_postgres", "postgres_server"]
from tests.unit.ledger.certify import opened


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    make: Callable[[], str] = request.getfixturevalue("fresh_postgres")
    return make()


def test_commits_and_inserts_are_timed_and_leave_nothing(url: str, tmp_path: Path) -> None:
    with bare_database(url) as bare:
        bare.commit()
        bare.commit()
        assert bare.insert_seconds(50) > 0
        assert bare.record_insert_seconds(50) > 0
        if url.startswith("sqlite"):
            with sqlite3.connect(tmp_path / "bench.db") as other:
                assert other.execute("SELECT count(*) FROM s3t_bench_commit").fetchone() == (2,), (
                    "seen by others: committed"
                )
                assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(tmp_path.glob("bench.db*"))
    with opened(url, create=True) as ledger:
        assert ledger.run() is None, "no table was left that an empty ledger would not take"


def test_the_table_with_indexes_is_like_the_ledgers(tmp_path: Path) -> None:
    """Or the second floor would be of something else."""
    from benchlib.floors import MIGRATED

    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", create=True):
        pass
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        theirs = database.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql LIKE '% s3t_records %'"
        )
        columns = database.execute("SELECT count(*) FROM pragma_table_info('s3t_records')").fetchone()
        assert theirs.fetchone() == (sum("CREATE INDEX" in statement for statement in MIGRATED),)
        database.execute(MIGRATED[0].format(blob="BLOB"))
        assert database.execute("SELECT count(*) FROM pragma_table_info('s3t_bench_rows')").fetchone() == columns


def test_other_databases_are_refused() -> None:
    with pytest.raises(ConfigError, match="neither SQLite nor PostgreSQL"), bare_database("mysql://host/db"):
        pass
