"""Fixtures of the ledger's fault tests: both databases, and child processes that start warm."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.postgres import fresh_postgres, postgres_server

__all__ = ["fresh_postgres", "postgres_server"]


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """A function that returns the URL of a new place for a ledger."""
    if request.param == "postgres":
        return request.getfixturevalue("fresh_postgres")
    made: Iterator[int] = iter(range(10_000))
    return lambda: f"sqlite:///{tmp_path / str(next(made))}.db"


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Processes forked from one that has done the imports and has nothing open."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.ledger.children"])
    return context
