"""Worker groups that die: their published stages count, and unfinished unwanted ones are erased."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s3t_ray.audit.verify import verify
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.status import status
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.scheduler.policy.retries import LOSSES, OWN_FAULTS
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob
from tests.faults.runtime import life
from tests.faults.runtime.life import LeakyWorkers, Life, config_of, write_data
from tests.faults.runtime.promises import found_in


class DyingWorkers(LeakyWorkers):
    """Its groups die over the stages that `dies` names: before they publish, or right after."""

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__(store)
        self._folder = folder
        self.dies_before: Callable[[StageJob], bool] = lambda job: False
        self.dies_after: Callable[[StageJob], bool] = lambda job: False

    def _end(self, group: int, job: StageJob) -> Finished:
        if self.dies_before(job):
            checkpoint = f"checkpoints/{job.stage_id}/000000001"
            rows = b"".join(self._store.fetch(part.path, Path()).read_bytes() for part in job.slices)
            self._store.write_bytes(f"{checkpoint}/rank-0.safetensors", rows)
            self._store.write_bytes(f"{checkpoint}/tmp", b" ".join(s.encode() for s in secrets_of(self._folder)))
            return Finished(group, job.stage_id, error="worker group lost", lost=True)
        after = self.dies_after(job)
        done = super()._end(group, job)
        return Finished(group, job.stage_id, error="worker group lost", lost=True) if after else done


def secrets_of(folder: Path) -> list[str]:
    return [life.secret(name) for name in sorted(life.deleted_by(folder, 1))]


def begun(folder: Path) -> tuple[Life, DyingWorkers]:
    write_data(folder)
    started = Life(config_of(folder), lambda run: DyingWorkers(run.store, folder))
    assert isinstance(started.workers, DyingWorkers)
    return started, started.workers


def test_what_a_dead_group_left_of_a_stage_that_a_deletion_renames_is_erased(quick: Path) -> None:
    started, workers = begun(quick)
    workers.dies_before = lambda job: True
    started.tick(4)
    assert started.run.store.files("checkpoints")
    ids, subjects = life.requests(quick)[0]
    receipt = deletion.accept(started.run, ids, subjects)
    workers.dies_before = lambda job: False
    started.settle()
    assert started.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    gone = sorted(life.deleted_by(quick, 1))
    assert found_in(quick, [*gone, *map(life.secret, gone)], ("data.jsonl", "held.jsonl")) == []
    assert started.run.store.files("checkpoints") == [] and verify(started.run).problems == ()


def test_a_stage_that_was_published_before_its_group_died_counts(quick: Path) -> None:
    started, workers = begun(quick)
    workers.dies_after = lambda job: True
    started.settle()
    names = [job.stage_id for job in workers.trained]
    assert len(names) == len(set(names)) == 8
    assert started.scheduler.totals.trained == 8 and not started.run.ledger.failures()
    assert status(started.run).settled and verify(started.run).problems == ()


def test_losses_are_forgiven_longer_than_faults_and_then_named(quick: Path) -> None:
    started, workers = begun(quick)
    counts: dict[str, int] = {}

    def dies(times: int) -> Callable[[StageJob], bool]:
        def dies_before(job: StageJob) -> bool:
            counts[job.stage_id] = counts.get(job.stage_id, 0) + 1
            return counts[job.stage_id] <= times

        return dies_before

    workers.dies_before = dies(OWN_FAULTS + 1)
    started.settle()
    assert status(started.run).settled and not started.scheduler.retries.given_up
    ids, subjects = life.requests(quick)[0]
    deletion.accept(started.run, ids, subjects)
    workers.dies_before = dies(LOSSES + OWN_FAULTS)
    started.settle()
    given_up = started.scheduler.retries.given_up
    assert given_up and not status(started.run).settled
    assert {failure.attempts for failure in status(started.run).failures} == {LOSSES}
