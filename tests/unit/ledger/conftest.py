"""Fixtures of the ledger's tests: every test that asks for `url` or `ledger` runs on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_ray.ledger.ledger import Ledger
from tests.postgres import fresh_postgres, postgres_server
from tests.unit.ledger.certify import KEYS
from tests.unit.ledger.world import RUN, Clock, entries

__all__ = ["fresh_postgres", "postgres_server"]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger can be made: empty, the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return request.getfixturevalue("fresh_postgres")()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def empty(url: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger without a run, that asks for `KEYS`."""
    with Ledger.open(url, create=True, clock=clock) as ledger:
        ledger.bind(lambda: KEYS)
        yield ledger


@pytest.fixture
def ledger(empty: Ledger) -> Ledger:
    """2 shards of 3 slices, 4 records each (`world.entries`), and 4 held out."""
    empty.ingest(RUN, entries())
    return empty
