"""Shards and their owners: determine what a shard's sequences still need, and erase what they must forget.

A `ShardOwner` handles a block of shards in its own process: the runtime wraps it in a Ray actor. It has no state: every
method reads the ledger and is idempotent, so it can be killed and restarted at any time. `ShardOwners` calls all owners
and replaces those that die. No Ray.
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
"""Seconds after which an owner that has not answered is replaced."""
OWNER_DEATHS = 5
"""Consecutive deaths of owners that a call survives."""
MOST_OWNERS = 8
"""Maximum number of owner processes, of about 160 MB each, for any number of shards."""


class Shard:
    """One shard of an open run."""

    def __init__(self, run: Run, shard: int) -> None:
        self._run = run
        self._shard = shard

    def view(self) -> ShardView:
        """What the shard needs and has now."""
        return view_shard(self._run, self._shard)

    def prune(self, epoch: int) -> ShardView:
        """Take every live stage that the sequences no longer need out of service. Returns the view afterwards.

        A deletion has already made its stages stale in the transaction of its receipt. This affects stages of
        orders that are no longer in the config.
        """
        view = self.view()
        unwanted = view.live - frozenset(view.plan.stages)
        if not unwanted:
            return view
        self._run.ledger.mark_stale(epoch, unwanted)
        return self.view()

    def purge(self, epoch: int, stopped: tuple[str, ...]) -> ShardView:
        """Erase what the deletions left behind (see `purge.py`). Returns the view afterwards."""
        purge_shard(self._run, epoch, self._shard, stopped)
        return self.view()


class ShardOwner:
    """Owner of some shards of the run at `run_uri`, with one process and one ledger connection for all of them."""

    def __init__(self, run_uri: str, shards: Sequence[int]) -> None:
        run = Run.open(run_uri)
        self._shards = {shard: Shard(run, shard) for shard in shards}

    def views(self, shards: Sequence[int]) -> dict[int, ShardView]:
        """What each of these shards needs and has now."""
        return {shard: self._shards[shard].view() for shard in shards}

    def prune(self, epoch: int, shards: Sequence[int]) -> dict[int, ShardView]:
        """Prune these shards (see `Shard.prune`). Returns their views afterwards."""
        return {shard: self._shards[shard].prune(epoch) for shard in shards}

    def purge(self, epoch: int, shard: int, stopped: tuple[str, ...]) -> dict[int, ShardView]:
        """Purge one shard (see `Shard.purge`). Returns its view afterwards."""
        return {shard: self._shards[shard].purge(epoch, stopped)}


def deal(shards: Sequence[int], owners: int) -> tuple[tuple[int, ...], ...]:
    """Split `shards` into at most `owners` consecutive, nonempty blocks whose sizes differ by at most one. Pure."""
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
        self._starts = [0] * len(self._blocks)  # owners started so far, by block
        self._purging: dict[Hashable, tuple[int, int]] = {}  # shard, and which of its block's owners was asked
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
        """Ask the owners of these shards in parallel. An owner that dies is replaced and asked again."""
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
        """Replace this owner with a new one, unless that has already happened.

        Kills the old one first, because two owners must never purge a shard at the same time.
        """
        if self._starts[block] == owner:
            self._calls.end(block)
            self._start(block)
