"""What a scheduler remembers between rounds. Not authoritative: a new scheduler starts without it.

In: what happened, one method per event. Out: `State`, a snapshot. Performs no I/O and takes no action. Values derived
from views are updated one view at a time, because a run can have a thousand of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from s3t_ray.config.schema import Requeue
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.run.shard_view import ShardView, Views
from s3t_ray.scheduler.policy.decide import ShardPurge
from s3t_ray.scheduler.policy.retries import Retries
from s3t_ray.scheduler.policy.state import UNFINISHED, State


class Bookkeeping:
    """Belongs to one scheduler; not thread-safe."""

    def __init__(self, views: Mapping[int, ShardView], policy: Requeue, clock: Callable[[], float]) -> None:
        self.views = Views(views)
        self.retries = Retries(clock)
        self._deletions: dict[DeletionState, tuple[DeletionRow, ...]] = dict.fromkeys(UNFINISHED, ())
        self._policy = policy
        self._clock = clock
        self._changed: set[int] = set()
        self._training: dict[str, Stage] = {}
        self._inputs: dict[str, Mapping[int, str]] = {}  # stage -> slice -> digest that it trains on
        self._stopping: set[str] = set()
        self._unaccounted: dict[int, set[str]] = defaultdict(set)
        self._viewed: set[str] = set()
        self._serving: dict[int, tuple[str, ...]] = {}
        self._stale: set[int] = set()
        self._confirmed: Mapping[int, tuple[str, ...]] | None = None
        self._confirmed_in_part = False
        self._purging: dict[int, ShardPurge] = {}
        self._purged: dict[str, set[int]] = defaultdict(set)
        self._unhealed_since: dict[int, float] = {}
        self._postponed: set[str] = set()
        self.followed_to: int | None = None
        """The views as last read (see `State`)."""

    def state(self, free: Iterable[int] = ()) -> State:
        """The current state; `free`: worker groups that can take a stage."""
        self._follow_views()
        return State(
            policy=self._policy,
            now=self._clock(),
            views=dict(self.views),
            changed=frozenset(self._changed),
            deletions=tuple(row for state in UNFINISHED for row in self._deletions[state]),
            training=dict(self._training),
            stopping=frozenset(self._stopping),
            unaccounted={shard: frozenset(stages) for shard, stages in self._unaccounted.items() if stages},
            viewed=frozenset(self._viewed),
            serving=dict(self._serving),
            confirmed=self._confirmed,
            confirmed_in_part=self._confirmed_in_part,
            followed_to=self.followed_to,
            stale=frozenset(self._stale),
            purging=frozenset(self._purging),
            purged={request: frozenset(shards) for request, shards in self._purged.items()},
            unhealed_since=dict(self._unhealed_since),
            waiting=self.retries.waiting,
            given_up=self.retries.given_up,
            postponed=frozenset(self._postponed),
            free=tuple(free),
        )

    def _follow_views(self) -> None:
        for shard in self.views.take_changed("books"):
            view = self.views[shard]
            self._changed.add(shard)
            if shard != HOLDOUT_SHARD:
                self._serving[shard] = view.serving
            if view.stale:
                self._stale.add(shard)
            else:
                self._stale.discard(shard)

    def decided(self) -> None:
        """Record that a decision has used the last `state`."""
        self._changed.clear()

    # Stages

    def started(self, stage: Stage, inputs: Mapping[int, str]) -> None:
        """A group trains this stage on slices with these digests. From now on it may leave bytes, even if it dies."""
        self._training[stage.id] = stage
        self._inputs[stage.id] = inputs
        self._unaccounted[stage.shard].add(stage.id)

    def asked_to_stop(self, stage_id: str) -> None:
        self._stopping.add(stage_id)

    def ended(self, stage_id: str) -> tuple[Stage, Mapping[int, str]]:
        """The stage left its group for any reason. Returns the stage and its slice digests."""
        stage = self._training.pop(stage_id)
        self._stopping.discard(stage_id)
        self.views.touch(stage.shard)
        return stage, self._inputs.pop(stage_id)

    def accepted(self, stages: Iterable[Stage]) -> None:
        """The ledger has accepted these stages: they are live, and purging goes by their ledger rows."""
        found: dict[int, set[str]] = defaultdict(set)
        for stage in stages:
            found[stage.shard].add(stage.id)
        for shard, names in found.items():
            self._unaccounted[shard] -= names
            self.views[shard] = self.views[shard].with_live(names)

    @property
    def training(self) -> frozenset[str]:
        """Ids of the stages in training."""
        return frozenset(self._training)

    # Deletions

    @property
    def purging(self) -> frozenset[int]:
        """Shards with a purge in progress."""
        return frozenset(self._purging)

    def look(self, deletions: Mapping[DeletionState, tuple[DeletionRow, ...]]) -> None:
        """Record the ledger's current deletions in these states."""
        self._deletions.update(deletions)
        known = {row.receipt.request_id for rows in self._deletions.values() for row in rows}
        self._viewed &= known
        for request in self._purged.keys() - known:
            del self._purged[request]

    def viewed(self, requests: Iterable[str], views: Mapping[int, ShardView]) -> None:
        """Record the views of the shards that these deletions hit, pruned and read after their acceptance."""
        self.views.put(views)
        self._viewed.update(requests)
        for shard in views:
            self._unhealed_since.setdefault(shard, self._clock())

    def confirmed(self, live_set: Mapping[int, tuple[str, ...]], in_part: bool) -> None:
        """Every replica confirmed this live set; `in_part`: at least one could not load a stage of it."""
        self._confirmed, self._confirmed_in_part = live_set, in_part

    def replica_joined(self) -> None:
        """A replica joined that has no live set yet."""
        self._confirmed = None

    def purge_began(self, purge: ShardPurge) -> None:
        self._purging[purge.shard] = purge

    def purge_ended(self, shard: int, view: ShardView) -> None:
        """The purge of this shard succeeded; `view` is the shard afterwards."""
        purge = self._purging.pop(shard)
        self._unaccounted[shard].difference_update(purge.stages)
        for request in purge.requests:
            self._purged[request].add(shard)
        self.views[shard] = view

    def purge_failed(self, shard: int) -> None:
        """The purge failed: everything that it covered is due again."""
        self._purging.pop(shard)

    def postponed(self, request: str) -> None:
        """This request could not be certified; do not retry it in this round."""
        self._postponed.add(request)

    def round_over(self) -> None:
        self._postponed.clear()
        for shard in [shard for shard in self._unhealed_since if not self.views[shard].missing]:
            del self._unhealed_since[shard]
