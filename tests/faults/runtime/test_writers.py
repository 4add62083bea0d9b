"""Concurrent writers: the older of two schedulers is fenced, and no deletion is lost."""

from __future__ import annotations

from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.audit.verify import verify
from s3t_ray.data.slices import read_slice
from s3t_ray.ledger.values import DeletionState, Fenced
from s3t_ray.run import deletion
from s3t_ray.scheduler.purge import purge_files, purge_rows
from s3t_ray.scheduler.shard import Shard
from s3t_ray.store import layout
from tests.fakes import Cluster, adapters, fake_base, small_config, write_records
from tests.faults.runtime import deleters
from tests.faults.runtime.conftest import PEOPLE


def trained(folder: Path) -> Cluster:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    return cluster


def without(folder: Path, gone: set[str]) -> dict[Any, Any]:
    """Adapters of a run that never had these records."""
    fresh = folder / "fresh"
    fake_base(fresh / "base")
    write_records(fresh / "data.jsonl", [(name, person) for name, person in PEOPLE if name not in gone])
    return adapters(trained(fresh).run)


@pytest.mark.parametrize("rounds", range(6))
def test_the_older_of_two_schedulers_is_fenced_wherever_it_stands_and_nothing_is_lost(
    folder: Path, rounds: int
) -> None:
    old = trained(folder)
    first = deletion.accept(old.run, ["r3"], ["p1"])
    for _ in range(rounds):
        old.scheduler.tick(0)
    new = Cluster(small_config(folder))
    second = deletion.accept(old.run, ["r4"], [])  # whoever opened the run may still delete
    with pytest.raises(Fenced):
        old.scheduler.tick(0)
    new.settle()
    gone = {"r3", "r4"} | {name for name, person in PEOPLE if person == "p1"}
    assert adapters(new.run) == without(folder, gone)
    for receipt in (first, second):
        assert new.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert verify(new.run).problems == ()


def test_a_fenced_purge_erases_nothing_that_its_successor_is_about_to_name(folder: Path) -> None:
    """The old purge has its file recorded and is about to erase the others, when a new scheduler writes its own."""
    run = trained(folder).run
    old = run.ledger.take_lease("old")
    (state,) = [s for s in run.ledger.slices(0) if s.slice == 0]
    first, second, *_ = [row.id for row in read_slice(run.store.local_path(state.file or ""))]  # type: ignore[arg-type]
    deletion.accept(run, [first], [])
    (state,) = [s for s in run.ledger.slices(0) if s.slice == 0]
    purge_rows(run, old, state)
    new = run.ledger.take_lease("new")
    deletion.accept(run, [second], [])
    run.store.write_bytes(layout.slice_file(0, 0, "ab" * 32), b"written by the successor")
    with pytest.raises(Fenced):
        purge_files(run, old, 0, 0)
    assert run.store.exists(layout.slice_file(0, 0, "ab" * 32))
    with pytest.raises(Fenced):
        Shard(run, 0).purge(old, ())
    Shard(run, 0).purge(new, ())
    assert len(run.store.files("slices/0/0")) == 1


def send(context: ForkServerContext, folder: Path, requests: list[list[tuple[list[str], list[str]]]]) -> list[str]:
    """A process for each list of requests, all begun at once; the lines that they acknowledged."""
    acknowledged = folder / "acknowledged"
    begin = context.Event()
    children = [
        context.Process(target=deleters.delete_each, args=(folder / "run", acknowledged, part, begin))
        for part in requests
    ]
    for child in children:
        child.start()
    begin.set()
    for child in children:
        child.join()
        assert child.exitcode == 0
    return acknowledged.read_text().splitlines()


def test_processes_that_delete_at_once_share_receipts_for_the_same_and_add_up_for_the_rest(
    folder: Path, processes: ForkServerContext
) -> None:
    cluster = trained(folder)
    same: list[Any] = [([name], []) for name in ("r0", "r1", "r2")]
    overlapping = [([], ["p3"]), (["r3", "r4"], [])]
    own: list[list[Any]] = [[([f"r{number}"], [])] for number in (8, 9, 10)]
    requests = [[*same, *overlapping, *part] for part in own]
    lines = [line.split() for line in send(processes, folder, requests)]
    assert len(lines) == 3 * (len(same) + len(overlapping) + 1)
    firsts = Counter(request for request, _, repeated in lines if repeated == "False")
    assert set(firsts.values()) == {1} and len(firsts) == len(same) + len(overlapping) + len(own)
    rows = cluster.run.ledger.deletions()
    assert {row.receipt.request_id for row in rows} == firsts.keys()
    gone = {"r0", "r1", "r2", "r3", "r4", "r8", "r9", "r10"} | {name for name, person in PEOPLE if person == "p3"}
    assert sum(row.receipt.records for row in rows) == len(gone)
    cluster.settle()
    assert {row.state for row in cluster.run.ledger.deletions()} == {DeletionState.RESTORED}
    assert adapters(cluster.run) == without(folder, gone)
    assert verify(cluster.run).problems == ()
