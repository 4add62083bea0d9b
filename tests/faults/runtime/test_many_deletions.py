"""Continuous deletions are handled together, none waits forever, and affected stages stop training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s3t_ray.audit.verify import verify
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob
from tests.fakes import FakeWorkers, adapters, fake_base, write_records
from tests.faults.runtime.life import LeakyWorkers, Life, config_of

STREAM = [(f"r{number}", f"p{number % 20}") for number in range(120)]


def leaky(run: Run) -> FakeWorkers:
    return LeakyWorkers(run.store)


def begun(
    folder: Path,
    without: frozenset[str] = frozenset(),
    workers: Callable[[Run], FakeWorkers] = leaky,
    **changes: object,
) -> Life:
    folder.mkdir(exist_ok=True)
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [row for row in STREAM if row[0] not in without])
    data = {"path": str(folder / "data.jsonl"), "subject_field": "subject"}
    return Life(config_of(folder, data=data, slices=3, **changes), workers)


class SteppedWorkers(FakeWorkers):
    """A stage takes `steps` looks; a stage that was asked to stop ends at the next one."""

    steps = 3

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._looks: dict[str, int] = {}
        self.stopped: list[str] = []

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        done = []
        for group, job in list(self._jobs.items()):
            self._looks[job.stage_id] = self._looks.get(job.stage_id, 0) + 1
            if self._looks[job.stage_id] < self.steps and job.stage_id not in self._stopped:
                continue
            if job.stage_id in self._stopped:
                self.stopped.append(job.stage_id)
            del self._jobs[group], self._looks[job.stage_id]
            done.append(self._end(group, job))
        return tuple(done)

    @property
    def in_training(self) -> list[StageJob]:
        return list(self._jobs.values())


def with_stepped_workers(folder: Path) -> tuple[Life, SteppedWorkers]:
    life = begun(folder, workers=lambda run: SteppedWorkers(run.store))
    assert isinstance(life.workers, SteppedWorkers)
    return life, life.workers


def test_a_stage_in_training_on_a_deleted_record_is_stopped_at_its_next_step(quick: Path) -> None:
    life, workers = with_stepped_workers(quick)
    life.tick()
    first = workers.in_training[0]
    spot = (first.shard, first.slices[0].slice)
    view = life.scheduler.views[spot[0]]
    (state,) = [s for s in view.slices if s.slice == spot[1]]
    from s3t_ray.data.slices import read_slice

    gone = next(read_slice(Path(life.run.location.storage_uri) / (state.file or ""))).id
    receipt = deletion.accept(life.run, [gone], [])
    life.tick(2)  # asked to stop, and gone at the next look: before it would have ended by itself
    assert first.stage_id in workers.stopped and first.stage_id not in {job.stage_id for job in workers.in_training}
    life.settle()
    assert first.stage_id not in {job.stage_id for job in workers.trained}
    assert not life.run.ledger.failures()
    assert life.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert adapters(life.run) == adapters(settled(begun(quick / "fresh", frozenset({gone}))).run)


def settled(life: Life) -> Life:
    life.settle()
    return life


def test_deletions_that_come_faster_than_they_are_handled_are_purged_together_and_all_restored(quick: Path) -> None:
    life, workers = with_stepped_workers(quick)
    purges: list[int] = []
    shards = life.shards
    original = shards.start_purge

    def count(shard: int, stopped: tuple[str, ...]) -> None:
        purges.append(shard)
        original(shard, stopped)

    shards.start_purge = count  # type: ignore[method-assign]
    sent: dict[str, int] = {}  # request -> tick
    purged: dict[str, int] = {}
    names = iter([name for name, _ in STREAM][:90])
    tick = 0
    while batch := [name for _, name in zip(range(4), names, strict=False)]:
        for name in batch:
            sent[deletion.accept(life.run, [name], []).request_id] = tick
        life.tick()
        tick += 1
        for row in life.run.ledger.deletions():
            if row.state.rank >= DeletionState.PURGED.rank:
                purged.setdefault(row.receipt.request_id, tick)
    # While the stream went on, each was erased after a few rounds: a stop, and two purges at most.
    waited = [purged.get(request, tick) - began for request, began in sent.items()]
    assert max(waited) <= 3 * workers.steps
    assert len(purged) > 60
    life.settle()
    assert {row.state for row in life.run.ledger.deletions()} == {DeletionState.RESTORED}
    assert len(purges) < 90  # a purge covers all that waits for it, in its shard
    gone = frozenset(name for name, _ in STREAM[:90])
    assert adapters(life.run) == adapters(settled(begun(quick / "fresh", gone)).run)
    assert verify(life.run).problems == ()


def test_deletions_that_name_the_records_of_earlier_ones_wait_for_them(quick: Path) -> None:
    """The earlier one hits two shards, and the purge of one of them keeps failing for a while."""
    life = begun(quick)
    life.settle()
    shards = life.shards
    first = deletion.accept(life.run, [], ["p1"])  # in several shards
    assert len(first.shards) == 2
    (again, *_) = [name for name, person in STREAM if person == "p1"]
    same = deletion.accept(life.run, [again], [])
    also = deletion.accept(life.run, [again, "r100"], [])
    original = shards._shards[1]

    class Failing:
        def purge(self, epoch: int, stopped: tuple[str, ...]) -> object:
            from s3t_ray.errors import StoreError

            raise StoreError("no answer", "wait")

        def __getattr__(self, name: str) -> object:
            return getattr(original, name)

    shards._shards[1] = Failing()  # type: ignore[assignment]
    life.tick(6)
    states = [life.run.ledger.deletion(receipt.request_id).state for receipt in (first, same, also)]
    assert states == [DeletionState.PRUNED] * 3
    shards._shards[1] = original
    life.settle()
    assert {row.state for row in life.run.ledger.deletions()} == {DeletionState.RESTORED}
    order = [made.facts.request_id for made in life.run.ledger.certificates()]
    assert order.index(first.request_id) == 0
    assert verify(life.run).problems == ()
