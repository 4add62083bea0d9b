"""One shard: the owner of its sequences. Says what they want trained, and erases what they must forget.

A plain class; `actors.py` makes one Ray actor a shard. It keeps no truth of its own: every method
reads the ledger, so it can be killed and started again at any time, and each is idempotent.
"""

from __future__ import annotations

from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.scheduler.purge import purge_shard


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
