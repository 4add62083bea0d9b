"""Failures by kind: counted, shown while they last, retried, and cleared on success."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from s3t_ray.errors import StoreError
from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedServing, FailedStage
from s3t_ray.ledger.values import DeletionState, StageState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.scheduler.policy.retries import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, LOSSES, OWN_FAULTS, Retries
from s3t_ray.scheduler.shard import Shard
from s3t_ray.train.job import StageJob
from tests.fakes import Cluster, FakeWorkers, fake_base, small_config, write_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    return tmp_path


def subjects(cluster: Cluster) -> set[object]:
    return {row.subject for row in cluster.run.ledger.failures()}


def test_a_live_set_that_replicas_cannot_load_is_shown_until_they_can(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.replicas.answer = lambda chains: ("replica",)
    cluster.settle()
    (failure,) = status(cluster.run).failures
    assert (failure.kind, failure.title, failure.stage_id, failure.shard) == ("serving", "serving", None, None)
    assert "1 replicas serve less" in failure.error
    again = Cluster(small_config(folder))  # its replicas load it all, and it knows what its predecessor noted
    again.settle()
    assert subjects(again) == set() and again.scheduler.retries.given_up == frozenset()


def test_a_purge_that_fails_is_shown_with_its_shard_and_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    receipt = deletion.accept(cluster.run, ["r3"], [])
    (shard,) = [each.shard for each in receipt.shards]

    def refuse(self: Shard, epoch: int, stopped: tuple[str, ...]) -> object:
        raise StoreError("the disk does not answer", "look at it")

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "purge", refuse)
        for _ in range(3):
            cluster.now += 1
            cluster.scheduler.tick(0)
    failures = {(failure.kind, failure.shard, failure.error) for failure in status(cluster.run).failures}
    assert failures == {("purge", shard, "the disk does not answer"), ("purge", -1, "the disk does not answer")}
    assert {failure.title for failure in status(cluster.run).failures} == {
        f"purge of shard {shard}",
        "purge of the held-out records",
    }
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.PRUNED
    cluster.settle()
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert subjects(cluster) == set()


class LosingWorkers(FakeWorkers):
    """Its groups die over every stage: before it is published, or right after."""

    after_publishing = False

    def _end(self, group: int, job: StageJob) -> Finished:
        if self.after_publishing:
            super()._end(group, job)
        return Finished(group, job.stage_id, error="worker group lost", lost=True)


def losing(folder: Path, after_publishing: bool) -> Cluster:
    def workers(run: Run) -> FakeWorkers:
        made = LosingWorkers(run.store)
        made.after_publishing = after_publishing
        return made

    return Cluster(small_config(folder), workers=workers)


def test_a_stage_that_was_published_before_its_group_died_counts(folder: Path) -> None:
    cluster = losing(folder, after_publishing=True)
    cluster.settle()
    assert status(cluster.run).settled and subjects(cluster) == set()
    assert cluster.scheduler.totals.trained == len(cluster.workers.trained) == 12


def test_a_stage_that_keeps_killing_its_group_is_given_up_in_the_end(folder: Path) -> None:
    cluster = losing(folder, after_publishing=False)
    cluster.settle()
    failures = status(cluster.run).failures
    assert {failure.attempts for failure in failures} == {LOSSES}
    assert {FailedStage(failure.stage_id or "") for failure in failures} == cluster.scheduler.retries.given_up


class HeldWorkers(FakeWorkers):
    """Nothing ends while `held`."""

    held = True

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        return () if self.held else super().finished(wait_seconds)

    @property
    def in_training(self) -> list[StageJob]:
        return list(self._jobs.values())


def test_a_stage_that_fails_once_a_deletion_has_renamed_it_leaves_nothing_and_counts_for_nothing(folder: Path) -> None:
    workers: list[HeldWorkers] = []

    def held(run: Run) -> FakeWorkers:
        workers.append(HeldWorkers(run.store, groups=1, fail=lambda job: "boom"))
        return workers[0]

    cluster = Cluster(small_config(folder), workers=held)
    cluster.scheduler.tick(0)
    (job,) = workers[0].in_training
    cluster.run.store.write_bytes(f"checkpoints/{job.stage_id}/1/rank-0.safetensors", b"rows")
    deletion.accept(cluster.run, [f"r{number}" for number in range(29)], [])
    cluster.scheduler.tick(0)  # it is asked to stop, and fails over it
    workers[0].held = False
    cluster.scheduler.tick(0)
    assert cluster.run.store.files(f"checkpoints/{job.stage_id}") == []
    assert FailedStage(job.stage_id) not in subjects(cluster) | cluster.scheduler.retries.waiting


def test_a_damaged_stage_below_is_the_reason_and_not_the_fault_of_the_one_above(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    first = next(row for row in cluster.run.ledger.stages(0, StageState.LIVE) if row.depth == 1)
    (folder / "run" / "stages" / first.id / "adapter_model.safetensors").write_bytes(b"damaged")
    wanted = {row.id for row in cluster.run.ledger.stages(0, StageState.LIVE)}
    last = next(row for row in cluster.run.ledger.stages(0, StageState.LIVE) if first.id in row.ancestors[:1])
    shutil.rmtree(folder / "run" / "stages" / last.id)  # so that it is trained again, on the damaged one
    again = Cluster(small_config(folder))
    again.settle()
    assert {row.id for row in again.run.ledger.stages(0, StageState.LIVE)} == wanted
    assert first.id in {job.stage_id for job in again.workers.trained}
    assert subjects(again) == set() and again.scheduler.retries.given_up == frozenset()


def test_a_back_off_doubles_up_to_a_minute_and_a_success_forgets_it() -> None:
    now = 0.0
    retries = Retries(lambda: now)
    subject = FailedPurge(3)
    waits = []
    for _ in range(LOSSES - 1):
        retries.failed(subject, lost=True)
        began = now
        while subject in retries.waiting:
            now += FIRST_WAIT_SECONDS / 2
        waits.append(now - began)
    assert waits == [1, 2, 4, 8, 16, 32, 60] and LONGEST_WAIT_SECONDS == 60
    retries.failed(subject, lost=True)
    now += 1e9
    assert retries.given_up == retries.waiting == {subject}, "for ever"
    retries.succeeded(subject)
    assert retries.waiting == frozenset()
    for _ in range(OWN_FAULTS):
        retries.failed(FailedServing(), lost=False)
    assert retries.given_up == {FailedServing()}
