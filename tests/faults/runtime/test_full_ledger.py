"""A full ledger and an unwritable storage give clear errors, leave nothing incomplete, and heal afterwards."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from s3t_ray.audit.verify import verify
from s3t_ray.errors import LedgerError, StoreError
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.store import local
from s3t_ray.store.disk import Disk
from tests.fakes import Cluster, adapters, small_config


@contextmanager
def every_connection(pragma: str) -> Iterator[None]:
    """Each SQLite connection opened meanwhile begins with this pragma."""

    def prepare(connection: object, _record: object) -> None:
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]

    event.listen(Engine, "connect", prepare)
    try:
        yield
    finally:
        event.remove(Engine, "connect", prepare)


def trained(folder: Path) -> Cluster:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    return cluster


@pytest.mark.parametrize(
    ("pragma", "word"),
    [("max_page_count = 1", "free space"), ("query_only = ON", "writable")],
    ids=["full", "readonly"],
)
def test_a_deletion_that_the_ledger_cannot_write_is_not_acknowledged_and_changes_nothing(
    folder: Path, pragma: str, word: str
) -> None:
    cluster = trained(folder)
    before = (cluster.run.ledger.slices(), cluster.run.ledger.stages(), cluster.run.ledger.deletions())
    # Room for nothing: a page count below what is there means what is there.
    with every_connection(pragma), Run.open(folder / "run") as run:
        with pytest.raises(LedgerError) as refused:
            for name in (f"r{number}" for number in range(24)):
                deletion.accept(run, [name], [])
        assert word in refused.value.fix
        acknowledged = [row.receipt.request_id for row in run.ledger.deletions()]
    after = (cluster.run.ledger.slices(), cluster.run.ledger.stages(), cluster.run.ledger.deletions())
    if pragma.startswith("query_only"):
        assert after == before and not acknowledged
    again = trained(folder)
    assert {row.receipt.request_id for row in again.run.ledger.deletions()} == set(acknowledged)
    assert verify(again.run).problems == ()


def test_a_scheduler_whose_ledger_is_full_stops_with_the_reason_and_the_next_goes_on(folder: Path) -> None:
    reference = adapters(trained(reference_folder(folder)).run)
    Cluster(small_config(folder)).run.close()  # the data is read, and nothing trained
    with sqlite3.connect(folder / "run" / "ledger.db") as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    with every_connection(f"max_page_count = {pages + 1}"):
        with pytest.raises(LedgerError) as refused:
            trained(folder)
        assert "free space on the ledger's disk" in refused.value.fix
    again = trained(folder)
    assert adapters(again.run) == reference and status(again.run).settled


def reference_folder(folder: Path) -> Path:
    from tests.fakes import fake_base, write_records
    from tests.faults.runtime.conftest import PEOPLE

    fresh = folder / "fresh"
    fake_base(fresh / "base")
    write_records(fresh / "data.jsonl", PEOPLE)
    return fresh


@contextmanager
def refused_by_disk(code: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every step of a store opened meanwhile fails with this error."""

    def before(operation: str, path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    with monkeypatch.context() as patch:
        patch.setattr(local, "Disk", lambda: Disk(before))
        yield


@pytest.mark.parametrize(("code", "word"), [(errno.EROFS, "writable"), (errno.ENOSPC, "free disk space")])
def test_storage_that_cannot_be_written_refuses_training_and_keeps_answering(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, word: str
) -> None:
    cluster = trained(folder)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    with refused_by_disk(code, monkeypatch):
        with pytest.raises(StoreError) as refused:
            Run.create(small_config(folder, budget=3))  # another config: it would have to be published
        assert word in refused.value.fix
        with Run.open(folder / "run") as run:
            assert not status(run).settled  # reading needs no writing
            also = deletion.accept(run, ["r5"], [])  # and a deletion only the ledger
        struck = Cluster(small_config(folder))
        struck.settle()  # what cannot be erased or published is tried, and then given up
        assert struck.scheduler.retries.given_up
        assert any(word in failure.error or "cannot" in failure.error for failure in struck.run.ledger.failures())
    states = {row.receipt.request_id: row.state for row in cluster.run.ledger.deletions()}
    assert states == {receipt.request_id: DeletionState.PRUNED, also.request_id: DeletionState.PRUNED}
    again = trained(folder)
    assert {row.state for row in again.run.ledger.deletions()} == {DeletionState.RESTORED}
    assert verify(again.run).problems == ()
