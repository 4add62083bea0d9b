"""The owners of the shards: each says what its sequences want trained, and erases what they must forget.

`Shard` is one of them, a plain class; the runtime makes one Ray actor a shard. It keeps no truth of its own: every
method reads the ledger, so it can be killed and started again at any time, and each is idempotent. `ShardOwners`
asks all of them and replaces those that die. No Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from s3t_ray.errors import ClusterError, S3TError
from s3t_ray.ledger.values import Fenced
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.scheduler.interfaces import OwnerCalls, OwnerFailed, OwnerLost
from s3t_ray.scheduler.purge import purge_shard

ANSWER_SECONDS = 120.0
"""An owner that has not answered after this long is replaced."""
OWNER_DEATHS = 5
"""Deaths in a row that a call survives."""


class Shard:
    """Owner of shard `shard` of the run at `run_uri`."""

    def __init__(self, run_uri: str, shard: int) -> None:
        self._run = Run.open(run_uri)
        self._shard = shard

    def view(self) -> ShardView:
        """What the shard wants and has now."""
        return view_shard(self._run, self._shard)

    def prune(self, epoch: int) -> ShardView:
        """Take out of service every live stage that the sequences no longer want; the view after it.

        A deletion has already made its stages stale in the transaction of its receipt; what is left
        here are stages of orders that the config no longer asks for.
        """
        view = self.view()
        unwanted = view.live - frozenset(view.plan.stages)
        if not unwanted:
            return view
        self._run.ledger.mark_stale(epoch, unwanted)
        return self.view()

    def purge(self, epoch: int, stopped: tuple[str, ...]) -> ShardView:
        """Erase what the deletions left behind; the view after it (see `purge.py`)."""
        purge_shard(self._run, epoch, self._shard, stopped)
        return self.view()


class ShardOwners:
    """One owner a shard, and one for the held-out data (see `interfaces.Shards`)."""

    def __init__(self, calls: OwnerCalls, epoch: int, shards: int) -> None:
        self._calls = calls
        self._epoch = epoch
        self._shards = (HOLDOUT_SHARD, *range(shards))
        self._purging: dict[Hashable, int] = {}
        for shard in self._shards:
            calls.start(shard)

    def views(self) -> dict[int, ShardView]:
        """See `interfaces.Shards`."""
        return self._ask(self._shards, self._calls.view)

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        """See `interfaces.Shards`."""
        return self._ask(shards, lambda shard: self._calls.prune(shard, self._epoch))

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        """See `interfaces.Shards`."""
        self._purging[self._calls.purge(shard, self._epoch, stopped)] = shard

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        """See `interfaces.Shards`. Raises Fenced."""
        if not self._purging:
            return {}
        results: dict[int, ShardView | Exception] = {}
        for call in self._calls.ended(tuple(self._purging)):
            shard = self._purging.pop(call)
            try:
                results[shard] = self._calls.answer(call, 0.0)
            except Fenced:
                raise
            except OwnerLost as error:
                self._replace(shard)
                results[shard] = error
            except (S3TError, OwnerFailed) as error:
                results[shard] = error
        return results

    def _ask(self, shards: Iterable[int], ask: Callable[[int], Hashable]) -> dict[int, ShardView]:
        """Ask these owners side by side; one that dies over it is replaced and asked again."""
        answers: dict[int, ShardView] = {}
        waiting = list(shards)
        for _ in range(OWNER_DEATHS):
            calls = {shard: ask(shard) for shard in waiting}
            waiting = []
            for shard, call in calls.items():
                try:
                    answers[shard] = self._calls.answer(call, ANSWER_SECONDS)
                except OwnerLost:
                    self._replace(shard)
                    waiting.append(shard)
            if not waiting:
                return answers
        raise ClusterError(
            f"the owners of shards {waiting} died or did not answer {OWNER_DEATHS} times in a row",
            "look at Ray's logs of the Shard actors (memory, lost nodes) and run the same command again: it resumes",
        )

    def _replace(self, shard: int) -> None:
        """A new owner. The old one is ended first: two must never purge one shard at once."""
        self._calls.end(shard)
        self._calls.start(shard)
