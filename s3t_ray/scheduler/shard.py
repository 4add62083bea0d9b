"""Shards and their owners: what the sequences of a shard still need, and erasing what they must forget.

A `ShardOwner` has a block of shards, in its own process: the runtime makes Ray actors of them. It holds no state of its
own: every method reads the ledger, so it can be killed and restarted at any time, and every method is idempotent.
`ShardOwners` calls all of them and replaces those that die. No Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise

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
MOST_OWNERS = 8
"""Processes of about 160 MB each, whether a run has eight shards or a thousand."""


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

    def purge(self, epoch: int, shard: int, stopped: tuple[str, ...]) -> dict[int, ShardView]:
        """Purge one shard; its view after it (see `Shard.purge`)."""
        return {shard: self._shards[shard].purge(epoch, stopped)}


def deal(shards: Sequence[int], owners: int) -> tuple[tuple[int, ...], ...]:
    """`shards` in at most `owners` blocks of neighbours, none of them empty, that differ by one at most. Pure."""
    count = min(owners, len(shards))
    bounds = [number * len(shards) // count for number in range(count + 1)]
    return tuple(tuple(shards[start:end]) for start, end in pairwise(bounds))


class ShardOwners:
    """The owners of all shards and of the held-out data (see `interfaces.Shards`)."""

    def __init__(self, calls: OwnerCalls, epoch: int, shards: int) -> None:
        self._calls = calls
        self._epoch = epoch
        self._blocks = deal((HOLDOUT_SHARD, *range(shards)), MOST_OWNERS)
        self._block_of = {shard: number for number, block in enumerate(self._blocks) for shard in block}
        self._starts = [0] * len(self._blocks)  # of each block's owners so far
        self._purging: dict[Hashable, tuple[int, int]] = {}  # the shard, and which owner of its block was asked
        for number in range(len(self._blocks)):
            self._start(number)

    def views(self) -> dict[int, ShardView]:
        """See `interfaces.Shards`."""
        return self._ask(self._block_of, self._calls.views)

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        """See `interfaces.Shards`."""
        return self._ask(shards, lambda block, touched: self._calls.prune(block, self._epoch, touched))

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        """See `interfaces.Shards`."""
        block = self._block_of[shard]
        self._purging[self._calls.purge(block, self._epoch, shard, stopped)] = (shard, self._starts[block])

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        """See `interfaces.Shards`. Raises Fenced."""
        if not self._purging:
            return {}
        results: dict[int, ShardView | Exception] = {}
        for call in self._calls.ended(tuple(self._purging)):
            shard, owner = self._purging.pop(call)
            try:
                results.update(self._calls.answer(call, 0.0))
            except Fenced:
                raise
            except OwnerLost as error:
                self._replace(self._block_of[shard], owner)
                results[shard] = error
            except (S3TError, OwnerFailed) as error:
                results[shard] = error
        return results

    def _ask(self, shards: Iterable[int], ask: Callable[[int, tuple[int, ...]], Hashable]) -> dict[int, ShardView]:
        """Ask the owners of these shards side by side; one that dies over it is replaced and asked again."""
        answers: dict[int, ShardView] = {}
        waiting: dict[int, list[int]] = {}
        for shard in shards:
            waiting.setdefault(self._block_of[shard], []).append(shard)
        for _ in range(OWNER_DEATHS):
            calls = {block: (ask(block, tuple(asked)), self._starts[block]) for block, asked in waiting.items()}
            for block, (call, owner) in calls.items():
                try:
                    answers.update(self._calls.answer(call, ANSWER_SECONDS))
                    del waiting[block]
                except OwnerLost:
                    self._replace(block, owner)
            if not waiting:
                return answers
        unanswered = sorted(shard for asked in waiting.values() for shard in asked)
        raise ClusterError(
            f"the owners of shards {unanswered} died or did not answer {OWNER_DEATHS} times in a row",
            "see Ray's logs of the ShardOwner actors (out of memory, lost nodes) and run the same command again: it "
            "resumes",
        )

    def _start(self, block: int) -> None:
        self._calls.start(block, self._blocks[block])
        self._starts[block] += 1

    def _replace(self, block: int, owner: int) -> None:
        """A new owner in place of this one, unless that was done already.

        The old one is ended first: two must never purge one shard at once.
        """
        if self._starts[block] == owner:
            self._calls.end(block)
            self._start(block)
