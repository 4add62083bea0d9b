"""The scheduler: makes what the run has equal to what its retained data and config require.

A round (`tick`) reads what happened, then decides and acts until nothing is left to do immediately. `decide.py` makes
the decision as a pure function; `deletion_steps.py` carries it out. The ledger has all state of the scheduler: if it is
killed at any point, the next one takes the lease, which fences this one, and continues from ledger and store.

A plain class over interfaces (`WorkerGroups`, `Shards`, `Replicas`): the runtime runs it in a Ray actor, the tests run
it with an in-process trainer. One thread calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.integrity.damage import incomplete
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, Views, view_shard
from s3t_ray.scheduler.bookkeeping import Bookkeeping
from s3t_ray.scheduler.deletion_steps import DeletionSteps, Surroundings, wanted
from s3t_ray.scheduler.interfaces import Replicas, Shards, WorkerGroups
from s3t_ray.scheduler.log_publishing import LogPublishing
from s3t_ray.scheduler.policy.decide import decide
from s3t_ray.scheduler.policy.retries import Retries
from s3t_ray.scheduler.purge import purge_everything_left, purge_finished_checkpoints
from s3t_ray.scheduler.recover_published import adopt_published
from s3t_ray.scheduler.requeue import Offers, idle, sequences_in_need
from s3t_ray.scheduler.stage_results import StageResults, TrainingTotals
from s3t_ray.store import layout

DEPTHS = "depths"
"""Event of the ledger's history: live depth of each sequence of a shard, whenever it changed."""


class Scheduler:
    """One reconciler, of one epoch. Every method raises `Fenced` once a newer one exists."""

    def __init__(
        self,
        run: Run,
        epoch: int,
        workers: WorkerGroups,
        shards: Shards,
        replicas: Replicas,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._epoch = epoch
        self._workers = workers
        self._books = Bookkeeping(begin(run, epoch, shards), run.config.requeue, clock)
        self._offers = Offers(self._books.views)
        self._results = StageResults(run, epoch, self._books)
        self._steps = DeletionSteps(run, epoch, Surroundings(workers, shards, replicas), self._books)
        self._log = LogPublishing(run, epoch, clock)
        self._shown: dict[int, tuple[int, ...]] = {}

    def tick(self, wait_seconds: float) -> None:
        """One round; waits up to `wait_seconds` for a stage to finish."""
        self._run.ledger.beat(self._epoch)
        self._results.take(self._workers.finished(wait_seconds))
        self._steps.collect_purges()
        self._steps.look()
        self._act(free=())  # deletions first: they must not wait for worker groups, which may be unable to start
        self._steps.certify_interim()
        if free := self._workers.free():
            self._act(free)
        self._books.round_over()
        self._show_depths()
        self._log.round()

    def end(self, wait_seconds: float) -> None:
        """Finish after the last round: wait up to `wait_seconds` for witnesses to cosign the log."""
        self._log.end(wait_seconds)

    def _act(self, free: tuple[int, ...]) -> None:
        """Decide and act until nothing is left to do immediately."""
        while True:
            decision = decide(self._books.state(free), self._offers.place)
            self._books.decided()
            if not decision:
                return
            self._steps.take(decision)
            taken = {assignment.group for assignment in decision.train}
            free = tuple(group for group in free if group not in taken)

    @property
    def views(self) -> Views:
        """The current views of all shards."""
        return self._books.views

    @property
    def retries(self) -> Retries:
        """Repeated failures and their back-off."""
        return self._books.retries

    @property
    def totals(self) -> TrainingTotals:
        """Totals of training since this scheduler started."""
        return self._results.totals

    @property
    def idle(self) -> bool:
        """Whether nothing is in training or to place and no deletion is unfinished, apart from what was given up."""
        self._steps.look()  # a deletion may have been accepted since the round
        return idle(self._books.state())

    @property
    def sequences_to_train(self) -> int:
        """The maximum number of worker groups that could have work, now or later."""
        return sequences_in_need(self._books.state())

    def refresh_replicas(self) -> None:
        """Send the live set to every replica again, for one that has just joined."""
        self._books.replica_joined()

    def _show_depths(self) -> None:
        """Record every shard whose depths changed in the history."""
        changed: list[tuple[int | None, dict[str, object]]] = []
        for shard in sorted(self.views.take_changed("show")):
            view, shown = self.views[shard], self._shown.get(shard)
            if shard != HOLDOUT_SHARD and shown is not view.depths and shown != view.depths:
                self._shown[shard] = view.depths
                changed.append((shard, {"depths": list(view.depths)}))
        if changed:
            self._run.ledger.add_events(DEPTHS, changed)


def begin(run: Run, epoch: int, shards: Shards) -> dict[int, ShardView]:
    """Take over from an earlier scheduler. Returns the views afterwards.

    Sweeps temporary files, erases unwanted bytes, and accepts published stages.
    """
    run.store.sweep()
    views = shards.views()
    purge_everything_left(run, epoch, wanted((), views))
    files = frozenset(run.store.files(layout.STAGES))
    for shard in views:
        run.ledger.mark_stale(epoch, incomplete(run, shard, files))
    views.update(shards.prune(views))
    for shard, view in views.items():
        if adopt_published(run, epoch, view):
            views[shard] = view_shard(run, shard)
    purge_finished_checkpoints(run)
    return views
