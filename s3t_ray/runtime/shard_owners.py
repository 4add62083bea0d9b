"""The shards' owners on Ray: a few light processes for however many shards there are.

In: an open run. Out: views, prunes and purges, asked of all owners side by side (see `scheduler.interfaces.Shards`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from s3t_ray.errors import ClusterError, S3TError
from s3t_ray.ledger.values import Fenced
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.runtime.connect import NAMESPACE
from s3t_ray.scheduler.shard import ShardOwner
from s3t_ray.store.layout import shard_folder

ANSWER_SECONDS = 120.0
"""An owner that has not answered after this long is replaced."""
OWNER_DEATHS = 5
MOST_OWNERS = 8
"""Processes of about 160 MB each, whether a run has eight shards or a thousand."""
THREADS = 4
"""Calls that an owner works on at a time, of each kind."""


def deal(shards: Sequence[int], owners: int) -> tuple[tuple[int, ...], ...]:
    """`shards` in at most `owners` blocks of neighbours, none of them empty, that differ by one at most. Pure."""
    count = min(owners, len(shards))
    bounds = [number * len(shards) // count for number in range(count + 1)]
    return tuple(tuple(shards[start:end]) for start, end in pairwise(bounds))


class RayShards:
    """The owners of all shards and of the held-out data, as actors of the scheduler that made them."""

    def __init__(self, run: Run, epoch: int) -> None:
        self._epoch = epoch
        self._run = run
        self._blocks = deal((HOLDOUT_SHARD, *range(run.row.shards)), MOST_OWNERS)
        self._block_of = {shard: number for number, block in enumerate(self._blocks) for shard in block}
        self._owners = [self._start(number) for number in range(len(self._blocks))]
        self._purging: dict[ray.ObjectRef, tuple[int, Any]] = {}  # the shard, and the owner that was asked

    def views(self) -> dict[int, ShardView]:
        return self._ask(self._block_of, lambda owner, shards: owner.views.remote(shards))

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        return self._ask(shards, lambda owner, touched: owner.prune.remote(self._epoch, touched))

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        owner = self._owners[self._block_of[shard]]
        # In threads of its own: a prune must not wait for the purges before it.
        purge = owner.purge.options(concurrency_group="purges")
        self._purging[purge.remote(self._epoch, shard, stopped)] = (shard, owner)

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        if not self._purging:
            return {}
        done, _ = ray.wait(list(self._purging), num_returns=len(self._purging), timeout=0)
        results: dict[int, ShardView | Exception] = {}
        for future in done:
            shard, owner = self._purging.pop(future)
            try:
                results[shard] = ray.get(future)
            except Fenced:
                raise
            except (S3TError, RayTaskError) as error:
                results[shard] = error
            except RayError as error:
                self._replace(self._block_of[shard], owner)
                results[shard] = error
        return results

    def _ask(self, shards: Iterable[int], ask: Callable[[Any, tuple[int, ...]], ray.ObjectRef]) -> dict[int, ShardView]:
        """Ask the owners of these shards side by side; one that dies over it is replaced and asked again."""
        answers: dict[int, ShardView] = {}
        waiting: dict[int, list[int]] = {}
        for shard in shards:
            waiting.setdefault(self._block_of[shard], []).append(shard)
        for _ in range(OWNER_DEATHS):
            asked = {block: self._owners[block] for block in waiting}
            futures = {block: ask(owner, tuple(waiting[block])) for block, owner in asked.items()}
            for block, future in futures.items():
                try:
                    answers.update(ray.get(future, timeout=ANSWER_SECONDS))
                    del waiting[block]
                except RayTaskError:
                    raise
                except RayError:
                    self._replace(block, asked[block])
            if not waiting:
                return answers
        unanswered = sorted(shard for block in waiting.values() for shard in block)
        raise ClusterError(
            f"the owners of shards {unanswered} died or did not answer {OWNER_DEATHS} times in a row",
            "see Ray's logs of the ShardOwner actors (memory, lost nodes) and run the same command again: it resumes",
        )

    def _start(self, number: int) -> Any:
        block = self._blocks[number]
        names = [shard_folder(shard) for shard in (block[0], block[-1])]
        shards = "-to-".join(dict.fromkeys(names))
        actor = ray.remote(concurrency_groups={"purges": THREADS})(ShardOwner)
        return actor.options(
            # Its name is for people, who see it in `ray list actors`; a predecessor's may still be there.
            name=f"owner-{self._run.config.name}-shards-{shards}-{secrets.token_hex(4)}",
            namespace=NAMESPACE,
            # No CPU of its own: it reads the ledger and moves files, and must never wait for a trainer.
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
            max_concurrency=THREADS,
            # Rows set aside as malformed are purged by their ids' digests: where the scheduler is, the keys are.
            scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
        ).remote(self._run.location.storage_uri, block)

    def _replace(self, number: int, owner: Any) -> None:
        """A new owner in place of this one, unless that was done already.

        The old one is killed first: two must never purge one shard at once.
        """
        if self._owners[number] is owner:
            ray.kill(owner)
            self._owners[number] = self._start(number)
