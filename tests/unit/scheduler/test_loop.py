"""A scheduler from its lease to its end in one process: its snapshots, replicas and exit. Without Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from s3t_ray.errors import ClusterError, LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState, Fenced
from s3t_ray.plan.fair_shares import Claim, Standing
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.run.status import status
from s3t_ray.scheduler.loop import HUNG_SECONDS, Heartbeat, SchedulerLoop, Snapshot
from tests.fakes import FakeShards, FakeWorkers, fake_base, small_config, write_records
from tests.unit.scheduler.test_capacity import PlayedCluster, PlayedRequests
from tests.unit.scheduler.test_confirmations import Clock, PlayedReplica


class ElasticWorkers(FakeWorkers):
    """Groups that hash, as many as were asked for."""

    closed = False

    @property
    def count(self) -> int:
        return self.groups

    def waiting(self) -> int:
        return 0

    def resize(self, count: int, rooms: Iterable[object] = ()) -> None:
        self.groups = count

    def close(self) -> None:
        self.closed = True


class ClosedRequests(PlayedRequests):
    closed = False

    def close(self) -> None:
        self.closed = True


class PlayedHost:
    """Where a scheduler runs, in this process. `every_round(snapshot)` is called with each snapshot."""

    name = "scheduler-own"

    def __init__(self, run: Run, every_round: Callable[[Snapshot], None]) -> None:
        self.cluster = PlayedCluster(2)
        self.found: dict[str, PlayedReplica] = {}
        self.asked_for = ClosedRequests()
        self.groups: list[ElasticWorkers] = []
        self._run = run
        self._every_round = every_round

    def peers(self) -> PlayedCluster:
        return self.cluster

    def workers(self, groups: int, wake: threading.Event) -> ElasticWorkers:
        self.groups.append(ElasticWorkers(self._run.store, groups))
        return self.groups[-1]

    def shards(self, epoch: int) -> FakeShards:
        return FakeShards(self._run, epoch)

    def requests(self) -> ClosedRequests:
        return self.asked_for

    def replicas(self) -> Mapping[str, PlayedReplica]:
        return self.found

    def metrics(self) -> PlayedHost:
        return self

    def look(self, ledger: Ledger, views: Mapping[int, ShardView], snapshot: Snapshot) -> None:
        self._every_round(snapshot)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    run = Run.create(small_config(tmp_path))
    ingest(run, lambda line: None)
    return run


def looping(
    run: Run, until: Callable[[Snapshot], bool] = lambda snapshot: snapshot.idle
) -> tuple[SchedulerLoop, PlayedHost]:
    """A loop that stops itself, and its host."""

    def every_round(snapshot: Snapshot) -> None:
        if until(snapshot):
            loop.stop()

    host = PlayedHost(run, every_round)
    loop = SchedulerLoop(run, host)
    return loop, host


def test_it_trains_all_and_shows_it(run: Run) -> None:
    claims = []

    def until(snapshot: Snapshot) -> bool:
        claims.append(loop.claim)
        return snapshot.idle

    loop, host = looping(run, until)
    assert loop.claim is None and loop.snapshot.rounds == 0, "it has not begun"
    loop.serve()
    assert status(run).settled
    assert (loop.snapshot.trained, loop.snapshot.idle, loop.snapshot.groups) == (12, True, 2)
    assert loop.snapshot.rounds == len(claims) >= 3 and run.ledger.lease().holder == host.name
    assert host.groups[0].closed and host.asked_for.closed
    assert all(claim == Claim(1.0, Standing.TRAINING) for claim in claims)
    assert loop.claim is None, "a scheduler that is over claims nothing"


def test_replicas_that_were_there_and_those_that_join_get_the_live_set(run: Run) -> None:
    clock = Clock()
    first, second = PlayedReplica(clock), PlayedReplica(clock)

    def until(snapshot: Snapshot) -> bool:
        if snapshot.rounds == 2:
            loop.attach("second", second)
        return snapshot.idle and snapshot.rounds > 4

    loop, host = looping(run, until)
    host.found = {"first": first}
    loop.serve()
    epoch = run.ledger.lease().epoch
    assert first.told[-1] == second.told[-1] and first.told[-1][0] >> 32 == epoch
    assert all(len(chain) == 3 for chain in second.told[-1][1].values())


def test_a_second_call_ends_as_the_first_did(run: Run) -> None:
    loop, _ = looping(run)
    loop.serve()
    rounds = loop.snapshot.rounds
    loop.serve()
    assert loop.snapshot.rounds == rounds
    broken, host = looping(run)
    error = ClusterError("worker group 0 failed to start", "look at the logs")
    host.groups.append(ElasticWorkers(run.store))

    def free() -> tuple[int, ...]:
        raise error

    def workers(groups: int, wake: threading.Event) -> ElasticWorkers:
        host.groups[0].free = free  # type: ignore[method-assign]
        return host.groups[0]

    host.workers = workers  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(ClusterError, match="failed to start"):
            broken.serve()
    assert host.groups[0].closed and host.asked_for.closed and broken.claim is None


def test_worker_groups_that_cannot_start_keep_no_record_from_being_erased(run: Run) -> None:
    trained, _ = looping(run)
    trained.serve()
    receipt = deletion.accept(run, ["r3"], [])
    loop, host = looping(run)
    rounds = []

    class Starting(ElasticWorkers):
        def free(self) -> tuple[int, ...]:
            rounds.append(run.ledger.deletion(receipt.request_id).state.value)
            if len(rounds) == 3:
                raise ClusterError("worker group 0 failed to start", "look at the logs")
            return ()

    host.workers = lambda groups, wake: Starting(run.store, groups)  # type: ignore[method-assign]
    with pytest.raises(ClusterError):
        loop.serve()
    assert rounds == ["pruned", "purged", "purged"]


def test_a_call_begins_the_next_round_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two rounds it would wait for an hour here: whatever happens meanwhile comes of the call."""
    trained, _ = looping(run)
    trained.serve()
    monkeypatch.setattr("s3t_ray.scheduler.loop.TICK_SECONDS", 3600.0)
    round_over = threading.Event()

    def until(snapshot: Snapshot) -> bool:
        round_over.set()
        return False

    loop, _ = looping(run, until)
    thread = threading.Thread(target=loop.serve)
    thread.start()
    try:
        assert round_over.wait(60)
        for record in ("r3", "r4"):
            round_over.clear()
            receipt = deletion.accept(run, [record], [])
            loop.wake()
            assert round_over.wait(60), "nobody told it"
            assert run.ledger.deletion(receipt.request_id).state is not DeletionState.ACCEPTED
    finally:
        loop.stop()
        thread.join(60)
    assert not thread.is_alive(), "an end does not wait for the next look either"


def test_a_run_that_waits_for_nodes_says_for_which_until_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, in the status and, by way of the snapshot, as a metric."""
    monkeypatch.setattr("s3t_ray.scheduler.policy.capacity.SECONDS_BETWEEN", 0.0)
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    run = Run.create(small_config(tmp_path, workers={"autoscale_to": 2, "gpus_per_rank": 1, "accelerator": "A100"}))
    ingest(run, lambda line: None)
    shown: list[tuple[int, str | None]] = []

    def until(snapshot: Snapshot) -> bool:
        shown.append((snapshot.waiting_groups, status(run).waiting))
        if len(shown) == 3:
            node = {"CPU": 1.0, "GPU": 1.0, "accelerator_type:A100": 1.0}
            monkeypatch.setattr(host.cluster, "nodes", lambda: [node, node])
        return snapshot.idle

    loop, host = looping(run, until)
    loop.serve()
    waits = (
        "2 worker groups wait for 1 CPU, 1 GPU on accelerator_type:A100: "
        "none of the 2 nodes has GPU or accelerator_type:A100"
    )
    assert shown[2] == (2, waits) and shown[-1] == (0, None)
    said = [record.message for record in caplog.records if record.name == "s3t_ray.scheduler.loop"]
    assert said == [f"{run.config.name}: {waits}", f"{run.config.name}: no worker group is waiting any more"]


def test_a_fenced_scheduler_ends(run: Run) -> None:
    def until(snapshot: Snapshot) -> bool:
        if snapshot.rounds == 1:
            run.ledger.take_lease("another")
        return False

    loop, host = looping(run, until)
    with pytest.raises(Fenced):
        loop.serve()
    assert host.groups[0].closed


def test_what_was_given_up_is_named(run: Run) -> None:
    loop, host = looping(run)

    def workers(groups: int, wake: threading.Event) -> ElasticWorkers:
        return ElasticWorkers(run.store, groups, fail=lambda job: "boom" if job.shard == 1 else None)

    host.workers = workers  # type: ignore[method-assign]
    loop.serve()
    shown = {(failure.kind, failure.error, failure.attempts) for failure in loop.snapshot.given_up}
    assert shown == {("stage", "boom", 3)}
    assert all(failure.title.startswith("stage ") for failure in loop.snapshot.given_up)


class PlayedLedger:
    """Counts beats, and fails as told."""

    def __init__(self, errors: Iterable[Exception | None]) -> None:
        self.beats = 0
        self._errors = iter(errors)

    def beat(self, epoch: int) -> int:
        self.beats += 1
        error = next(self._errors, None)
        if error is not None:
            raise error
        return self.beats


def test_a_heart_beats_over_a_ledger_that_is_busy_until_it_is_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3t_ray.scheduler.loop.BEAT_SECONDS", 0.0)
    ledger = PlayedLedger([None, LedgerError("it is locked", "wait"), None, Fenced("newer", "stop")])
    Heartbeat(ledger, 1).run()  # type: ignore[arg-type]
    assert ledger.beats == 4


def test_a_heart_stops_with_a_round_that_hangs_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3t_ray.scheduler.loop.BEAT_SECONDS", 0.0)
    clock = Clock()
    ledger = PlayedLedger([])
    heartbeat = Heartbeat(ledger, 1, clock)  # type: ignore[arg-type]
    clock.now += HUNG_SECONDS
    heartbeat.run()
    assert ledger.beats == 0
    heartbeat.round_began()
    thread = threading.Thread(target=heartbeat.run)
    thread.start()
    heartbeat.stop()
    thread.join()
    before = ledger.beats
    heartbeat.run()
    assert ledger.beats == before
