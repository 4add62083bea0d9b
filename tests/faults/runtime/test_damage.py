"""Changed bytes in the storage: live stages are retrained, and damaged data is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.audit.verify import verify
from s3t_ray.ledger.values import DeletionState, StageRow, StageState
from s3t_ray.run import deletion
from s3t_ray.run.integrity.damage import damaged
from s3t_ray.run.status import status
from tests.fakes import Cluster, adapters, fake_base, small_config, write_records
from tests.faults.runtime.conftest import PEOPLE

ADAPTER = "adapter_model.safetensors"


def truncate(stage: Path) -> None:
    path = stage / ADAPTER
    path.write_bytes(path.read_bytes()[:-7])


def flip(stage: Path) -> None:
    path = stage / ADAPTER
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def lose(stage: Path) -> None:
    (stage / ADAPTER).unlink()


def garble(stage: Path) -> None:
    (stage / "manifest.json").write_text("{")


DAMAGES = [truncate, flip, lose, garble]


def trained(folder: Path) -> Cluster:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    return cluster


def root(cluster: Cluster) -> Path:
    return Path(cluster.run.location.storage_uri)


def live(cluster: Cluster, shard: int, depth: int) -> list[StageRow]:
    return [row for row in cluster.run.ledger.stages(shard, StageState.LIVE) if row.depth == depth]


def some_record_of(cluster: Cluster, shard: int, index: int) -> str:
    from s3t_ray.data.slices import read_slice

    (state,) = [s for s in cluster.run.ledger.slices(shard) if s.slice == index]
    assert state.file is not None
    return next(read_slice(root(cluster) / state.file)).id


def without(folder: Path, gone: set[str]) -> dict[Any, Any]:
    """Adapters of a run that never had these records."""
    fresh = folder / "fresh"
    fake_base(fresh / "base")
    write_records(fresh / "data.jsonl", [(name, person) for name, person in PEOPLE if name not in gone])
    return adapters(trained(fresh).run)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stage_is_trained_again_when_one_above_it_fails(folder: Path, damage: Callable[..., None]) -> None:
    cluster = trained(folder)
    parent = live(cluster, 0, 2)[0]
    last = ({0, 1, 2} - set(parent.slices)).pop()
    damage(root(cluster) / "stages" / parent.id)
    gone = some_record_of(cluster, 0, last)
    receipt = deletion.accept(cluster.run, [gone], [])
    assert parent.id not in receipt.stages_pruned
    count = len(cluster.workers.trained)
    cluster.settle()
    assert adapters(cluster.run) == without(folder, {gone})
    assert [job.stage_id for job in cluster.workers.trained[count:]].count(parent.id) == 1
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert not cluster.scheduler.retries.given_up and not cluster.run.ledger.failures()
    assert verify(cluster.run).problems == ()


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_a_damaged_stage_and_the_next_start_mends_what_was_removed(
    folder: Path, damage: Callable[..., None]
) -> None:
    cluster = trained(folder)
    before = adapters(cluster.run)
    stage = live(cluster, 1, 1)[0]
    damage(root(cluster) / "stages" / stage.id)
    problems = verify(cluster.run).problems
    assert len(problems) == 1 and stage.id[:12] in problems[0]
    for path in (root(cluster) / "stages" / stage.id).iterdir():
        path.unlink()
    again = trained(folder)
    above = {row.id for row in again.run.ledger.stages(1) if stage.id in row.ancestors}
    assert {job.stage_id for job in again.workers.trained} == {stage.id} | above
    assert adapters(again.run) == before
    assert verify(again.run).problems == ()


class CarefulReplica:
    """One replica that reads what it is to serve."""

    def __init__(self, cluster: Cluster) -> None:
        self._run = cluster.run
        self.holds: dict[int, tuple[str, ...]] = {}

    def answer(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        broken = {name for shard, chain in chains.items() for name in damaged(self._run, shard, chain)}
        self.holds = {shard: tuple(n for n in chain if n not in broken) for shard, chain in chains.items()}
        return ("replica",) if broken else ()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_replica_that_cannot_load_a_damaged_stage_has_it_trained_again(
    folder: Path, damage: Callable[..., None]
) -> None:
    cluster = trained(folder)
    before = adapters(cluster.run)
    replica = CarefulReplica(cluster)
    cluster.replicas.answer = replica.answer
    served = cluster.scheduler.views[0].serving
    damage(root(cluster) / "stages" / served[1])
    cluster.scheduler.refresh_replicas()
    cluster.scheduler.tick(0)
    assert served[1] not in replica.holds[0]
    cluster.settle()
    assert adapters(cluster.run) == before
    assert replica.holds == {shard: view.serving for shard, view in cluster.scheduler.views.items() if shard >= 0}
    assert verify(cluster.run).problems == ()


def test_a_replica_that_cannot_read_the_storage_is_told_again_later(folder: Path) -> None:
    cluster = trained(folder)
    answers = [("replica",), ("replica",), ()]
    told: list[float] = []

    def answer(chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        told.append(cluster.now)
        return answers.pop(0)

    cluster.replicas.answer = answer
    cluster.scheduler.refresh_replicas()
    shown = []
    for _ in range(20):
        cluster.now += 0.5
        cluster.scheduler.tick(0)
        shown.append([(failure.kind, failure.attempts) for failure in status(cluster.run).failures])
    assert len(told) == 3 and told[1] - told[0] >= 1 and told[2] - told[1] >= 2
    assert shown[0] == [("serving", 1)] and shown[-1] == [], "told while it lasts, and not after"


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_lies_published_and_damaged_at_the_start_is_trained_again(
    folder: Path, damage: Callable[..., None]
) -> None:
    first = Cluster(small_config(folder))
    first.scheduler.tick(0)
    finished = first.workers.finished(0)  # published; the scheduler dies before it hears of it
    damage(root(first) / "stages" / finished[0].stage_id)
    second = trained(folder)
    again = [job.stage_id for job in second.workers.trained]
    assert finished[0].stage_id in again and finished[1].stage_id not in again
    assert verify(second.run).problems == ()


def test_a_changed_data_file_stops_its_stages_by_name_until_it_is_restored(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    (state,) = [s for s in cluster.run.ledger.slices(0) if s.slice == 0]
    assert state.file is not None
    path = root(cluster) / state.file
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"X" + whole[-8:])
    cluster.settle()
    errors = {failure.error for failure in cluster.run.ledger.failures()}
    assert len(errors) == 1 and state.file in errors.pop()
    assert {row.shard for row in cluster.run.ledger.stages() if 0 in row.slices} == {1}
    path.write_bytes(whole)
    assert verify(trained(folder).run).problems == ()


def test_rows_are_not_purged_out_of_a_changed_file_until_it_is_restored(folder: Path) -> None:
    cluster = trained(folder)
    gone = some_record_of(cluster, 0, 0)
    (state,) = [s for s in cluster.run.ledger.slices(0) if s.slice == 0]
    assert state.file is not None
    path = root(cluster) / state.file
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"X" + whole[-8:])
    receipt = deletion.accept(cluster.run, [gone], [])
    cluster.settle()  # it ends: a purge that keeps failing is given up
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.PRUNED
    (failure,) = cluster.run.ledger.failures()
    assert state.file in failure.error and "changed" in failure.error
    path.write_bytes(whole)
    again = trained(folder)
    assert again.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert adapters(again.run) == without(folder, {gone})
    assert verify(again.run).problems == () and not again.run.ledger.failures()
