"""Once faults stop, every deletion is certified within a bounded number of rounds, whatever happened before.

The clock is logical: a round is a second of it. That a stream of deletions delays no interim certificate is in
tests/unit/scheduler/test_interim.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from s3t_ray.config.schema import Config
from s3t_ray.errors import LedgerError, S3TError, StoreError
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.scheduler.policy.retries import LONGEST_WAIT_SECONDS
from tests.fakes import Cluster, small_config
from tests.fakes.same_keys import same_keys

ROUNDS = 36
EACH = 4
"""Rounds from one deletion to the next."""
GROUPS = 2
FAULTS = {"storage": 0.2, "ledger": 0.04, "stages": 0.7}
"""How likely each is to fail while faults last: an erasure or an upload, a transaction, a stage in training."""


class Faults:
    """Breaks writes of the storage and of the ledger, and stages, by chance, until it is told to stop."""

    def __init__(self, seed: int, what: frozenset[str]) -> None:
        # One for each kind: a write more or less of one leaves the others' faults where they are.
        self._random = {each: Random(f"{each} {seed}") for each in FAULTS}
        self._what = what
        self.happened: set[str] = set()
        self.on = True

    def strike(self, what: str) -> bool:
        struck = self.on and what in self._what and self._random[what].random() < FAULTS[what]
        if struck:
            self.happened.add(what)
        return struck

    def breaking(self, what: str, error: S3TError, do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            if self.strike(what):
                raise error
            return do(*given, **named)

        return step

    @contextmanager
    def of_ledger(self, write: Callable[[], Any]) -> Iterator[Any]:
        if self.strike("ledger"):
            raise LedgerError("the ledger refused: disk I/O error", "none: it is a test")
        with write() as transaction:
            yield transaction


def begin(config: Config, run: Run, faults: Faults) -> Cluster:
    """A scheduler in the place of one that died; it may die at its start, too."""
    while True:
        try:
            return Cluster(
                config,
                run=run,
                groups=GROUPS,
                fail=lambda job: "out of luck" if faults.strike("stages") else None,
            )
        except S3TError:
            assert faults.on


def survive(config: Config, cluster: Cluster, faults: Faults) -> Cluster:
    """One round; a scheduler that an error ended is replaced."""
    cluster.now += 1.0
    try:
        cluster.scheduler.tick(0)
    except S3TError:
        assert faults.on
        return begin(config, cluster.run, faults)
    return cluster


def rounds_to_settle(cluster: Cluster, bound: int) -> int:
    for turn in range(1, bound + 1):
        cluster.now += 1.0
        cluster.scheduler.tick(0)
        if cluster.scheduler.idle:
            return turn
    raise AssertionError(f"deletions are not finished {bound} rounds after the last fault")


def lived(folder: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults) -> tuple[Config, Cluster]:
    """A trained run through `ROUNDS` rounds of faults, with a deletion every few of them."""
    same_keys(folder / "run.keys")  # so that a seed always means the same faults
    config = small_config(folder)
    cluster = Cluster(config, groups=GROUPS)
    cluster.settle()
    run = cluster.run
    monkeypatch.setattr(run.store, "delete", faults.breaking("storage", StoreError("no", "none"), run.store.delete))
    monkeypatch.setattr(run.store, "upload", faults.breaking("storage", StoreError("no", "none"), run.store.upload))
    write = run.ledger._database.write
    monkeypatch.setattr(run.ledger._database, "write", lambda: faults.of_ledger(write))
    cluster = begin(config, run, faults)
    for turn in range(ROUNDS):
        if turn % EACH == 0:
            while True:
                try:
                    deletion.accept(run, [f"r{turn // EACH}"], [])
                    break
                except LedgerError:
                    continue  # nobody has a receipt: asked again
        cluster = survive(config, cluster, faults)
    faults.on = False
    return config, cluster


def work(run: Run) -> int:
    """Rounds that training everything takes: all stages over the groups, and the depth of a sequence."""
    stages = sum(len(run.plan(shard).stages) for shard in range(run.row.shards))
    return math.ceil(stages / GROUPS) + run.row.slices


def require_finished(run: Run) -> None:
    rows = run.ledger.deletions()
    assert len(rows) == ROUNDS // EACH
    assert {row.state for row in rows} == {DeletionState.RESTORED}
    assert run.ledger.contradictions() == ()


@pytest.mark.parametrize("seed", range(2))
def test_a_scheduler_that_begins_after_the_faults_finishes_everything_within_the_work_there_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    faults = Faults(seed, frozenset(FAULTS))
    config, cluster = lived(folder, monkeypatch, faults)
    assert faults.happened == set(FAULTS)
    again = begin(config, cluster.run, faults)
    rounds_to_settle(again, bound=work(again.run) + 4)  # a stop, a purge, a certificate, a look
    require_finished(again.run)


@pytest.mark.parametrize("seed", range(2))
def test_the_scheduler_that_lived_through_the_faults_waits_no_longer_than_its_longest_back_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Stages do not fail here: one that failed three times by itself is given up, until somebody begins again."""
    faults = Faults(seed, frozenset({"storage"}))
    _, cluster = lived(folder, monkeypatch, faults)
    assert faults.happened == {"storage"}
    rounds_to_settle(cluster, bound=int(LONGEST_WAIT_SECONDS) + work(cluster.run) + 4)
    require_finished(cluster.run)
