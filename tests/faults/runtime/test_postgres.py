"""A complete life of a run with a PostgreSQL ledger equals that with SQLite, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.ledger.values import DeletionState, Fenced
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from tests.fakes import adapters
from tests.faults.runtime.life import Life, accept, config_of, deleted_by, requests, secret, write_data
from tests.faults.runtime.promises import found_in, unkept
from tests.postgres import fresh_postgres, postgres_server

__all__ = ["fresh_postgres", "postgres_server"]


def begun(folder: Path, url: str | None, without: set[str] | None = None) -> Life:
    write_data(folder, without or set())
    return Life(config_of(folder, **({"ledger": {"url": url}} if url else {})))


def test_a_run_lives_and_forgets_on_postgres(quick: Path, fresh_postgres: Callable[[], str]) -> None:
    lived = begun(quick / "run", fresh_postgres())
    lived.settle()
    told: list[str] = []
    for number in range(len(requests(quick / "run"))):
        accept(lived.run, quick / "run", number, told.append)
        lived.tick()  # the next arrives while this one is on its way
    lived.settle()
    assert not (quick / "run" / "run" / "ledger.db").exists()
    gone = deleted_by(quick / "run", len(told))
    fresh = begun(quick / "fresh", None, gone)
    fresh.settle()
    acknowledged = [line.split()[2] for line in told]
    assert unkept(lived.run, acknowledged, adapters(fresh.run)) == []
    assert found_in(quick / "run", [*gone, *map(secret, gone)], ("data.jsonl", "held.jsonl")) == []
    with Run.open(quick / "run" / "run") as again:
        assert audit(again).problems == ()
        assert deletion.accept(again, *requests(quick / "run")[0]).repeated


def test_on_postgres_the_older_of_two_schedulers_is_fenced(quick: Path, fresh_postgres: Callable[[], str]) -> None:
    old = begun(quick, fresh_postgres())
    old.settle()
    receipt = deletion.accept(old.run, *requests(quick)[0])
    old.tick()
    new = Life(old.run.config)
    with pytest.raises(Fenced):
        old.tick()
    new.settle()
    assert new.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert audit(new.run).problems == ()
