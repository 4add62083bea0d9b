"""Opening a ledger: valid and invalid databases, and guarantees of every connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from tests.unit.ledger.certify import opened
from tests.unit.ledger.world import RUN, entries


def test_reopened_it_is_as_it_was(url: str) -> None:
    with opened(url, create=True) as ledger:
        states = ledger.ingest(RUN, entries())
        epoch = ledger.take_lease("first")
    with opened(url) as ledger:
        assert ledger.run() == RUN
        assert list(ledger.slices()) == states
        assert ledger.lease() == (epoch, "first", 0)


def test_create_keeps_what_is_there(ledger: Ledger, url: str) -> None:
    with opened(url, create=True) as again:
        assert again.run() == RUN


def test_an_empty_place_is_no_ledger(tmp_path: Path, fresh_postgres: Callable[[], str]) -> None:
    path = tmp_path / "typo.db"
    with pytest.raises(LedgerError, match="there is no ledger at"):
        Ledger.open(f"sqlite:///{path}")
    assert not path.exists()
    with pytest.raises(LedgerError, match="holds no ledger"):
        Ledger.open(fresh_postgres())


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    words = tmp_path / "words.db"
    words.write_text("these are only words " * 100)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    for path, reason in ((words, "not a database"), (other, "holds no ledger"), (tmp_path, "no ledger at")):
        before = path.read_bytes() if path.is_file() else None
        for create in (False, True):
            with pytest.raises(LedgerError, match=reason):
                Ledger.open(f"sqlite:///{path}", create=create)
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(f"sqlite:///{path}", create=True) as ledger:
        ledger.ingest(RUN, entries())
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(LedgerError, match=r"refused: .*malformed.*\n.*backup"):
        Ledger.open(f"sqlite:///{path}").slices()


def test_a_newer_schema_is_refused(ledger: Ledger, url: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO s3t_schema (version, applied_at) VALUES (99, 'later')"))
    engine.dispose()
    with pytest.raises(LedgerError, match=r"schema version 99.*\n.*newer s3t_ray"):
        Ledger.open(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "must survive a crash"),
        ("sqlite:///:memory:", "must survive a crash"),
        ("sqlite:///x.db?mode=memory", "must survive a crash"),
        ("mysql://host/name", "cannot use mysql"),
        ("ledger.db", "URL cannot be read"),
        ("sqlite:////proc/nowhere/ledger.db", "cannot be created"),
    ],
)
def test_urls_that_cannot_hold_a_ledger(url: str, reason: str) -> None:
    with pytest.raises(LedgerError, match=reason):
        Ledger.open(url, create=True)


def test_a_server_that_is_away_does_not_show_the_password(tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger.open(f"postgresql://me:secret@/runs?host={tmp_path}")
    assert "secret" not in str(caught.value)
    assert "postgresql+psycopg://me:***@/runs" in caught.value.problem


def _fill(ledger: Ledger) -> None:
    for _ in range(1000):
        ledger.add_event("note", None, {"text": "x" * 1000})


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path) -> None:
    """SQLite's own page limit stands for the disk's end."""
    with opened(f"sqlite:///{tmp_path / 'ledger.db'}", create=True) as ledger:
        ledger.ingest(RUN, entries())
        with ledger._database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match=r"full.*\n.*free space"):
            _fill(ledger)
        written = len(ledger.events())
    with opened(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        assert len(ledger.events()) == written
        assert ledger.add_event("note", None, {}).seq == written + 1


def test_what_the_driver_refuses_is_a_ledger_error_too(ledger: Ledger) -> None:
    """Some statements go to the driver itself: its errors are not SQLAlchemy's."""
    with pytest.raises(LedgerError, match="refused"), ledger._database.write() as tx:
        driver = tx.connection.connection.driver_connection
        assert driver is not None
        driver.execute("SELECT * FROM s3t_nowhere")
    assert ledger.run() == RUN


def test_commits_reach_the_disk(ledger: Ledger) -> None:
    with ledger._database.write() as tx:
        if tx.connection.dialect.name == "sqlite":
            settings = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
            for setting, value in settings.items():
                assert tx.connection.exec_driver_sql(f"PRAGMA {setting}").scalar() == value
        else:
            assert tx.connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
            assert tx.connection.execute(text("SHOW lock_timeout")).scalar() == "1min"


def test_a_role_without_synchronous_commit_gets_it(fresh_postgres: Callable[[], str]) -> None:
    url = fresh_postgres()
    with opened(url.replace("options=", "options=-csynchronous_commit%3Doff+"), create=True) as ledger:
        with ledger._database.write() as tx:
            assert tx.connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
