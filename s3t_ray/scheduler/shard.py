"""Shards and their owner: says what their sequences want trained, and erases what they must forget.

Plain classes; `runtime/shard_owners.py` makes Ray actors of owners. They keep no truth of their own: every method
reads the ledger, so an owner can be killed and started again at any time, and each is idempotent.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.scheduler.purge import purge_shard


class Shard:
    """One shard of an open run."""

    def __init__(self, run: Run, shard: int) -> None:
        self._run = run
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


class ShardOwner:
    """Owner of some shards of the run at `run_uri`: one process, one ledger connection, however many they are."""

    def __init__(self, run_uri: str, shards: Sequence[int]) -> None:
        run = Run.open(run_uri)
        self._shards = {shard: Shard(run, shard) for shard in shards}

    def views(self, shards: Sequence[int]) -> dict[int, ShardView]:
        """What each of these shards wants and has now."""
        return {shard: self._shards[shard].view() for shard in shards}

    def prune(self, epoch: int, shards: Sequence[int]) -> dict[int, ShardView]:
        """Prune these shards; their views after it (see `Shard.prune`)."""
        return {shard: self._shards[shard].prune(epoch) for shard in shards}

    def purge(self, epoch: int, shard: int, stopped: tuple[str, ...]) -> ShardView:
        """Purge one shard; the view after it (see `Shard.purge`)."""
        return self._shards[shard].purge(epoch, stopped)
