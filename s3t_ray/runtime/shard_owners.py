"""The owners of the shards as Ray actors: a few lightweight processes for any number of shards.

This module is thin: `scheduler/shard.py` decides which owner to call, and when to replace one.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from s3t_ray.errors import S3TError
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.runtime.connect import NAMESPACE
from s3t_ray.scheduler.interfaces import OwnerFailed, OwnerLost
from s3t_ray.scheduler.shard import ShardOwner, ShardOwners
from s3t_ray.store.layout import shard_folder

THREADS = 4
"""Maximum concurrent calls per owner, of each kind."""


def ray_owners(run: Run, epoch: int) -> ShardOwners:
    """The owners of all shards of a run, as actors of the scheduler that calls this."""
    return ShardOwners(RayOwners(run), epoch, run.row.shards)


class RayOwners:
    """See `interfaces.OwnerCalls`: one `ShardOwner` actor per block. A call is a Ray object reference."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._actors: dict[int, Any] = {}

    def start(self, block: int, shards: tuple[int, ...]) -> None:
        """See `interfaces.OwnerCalls`."""
        names = [shard_folder(shard) for shard in (shards[0], shards[-1])]
        named = "-to-".join(dict.fromkeys(names))
        actor = ray.remote(concurrency_groups={"purges": THREADS})(ShardOwner)
        self._actors[block] = actor.options(
            # The name is for `ray list actors`. It is unique because a predecessor may still exist.
            name=f"owner-{self._run.config.name}-shards-{named}-{secrets.token_hex(4)}",
            namespace=NAMESPACE,
            # Reserve no CPU: it reads the ledger and moves files, and must never wait for training.
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
            max_concurrency=THREADS,
            # Purging rows that were set aside needs the keys, which are on the scheduler's node.
            scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
        ).remote(self._run.location.storage_uri, shards)

    def end(self, block: int) -> None:
        """See `interfaces.OwnerCalls`."""
        ray.kill(self._actors.pop(block))

    def views(self, block: int, shards: tuple[int, ...]) -> Hashable:
        """See `interfaces.OwnerCalls`."""
        return self._actors[block].views.remote(shards)

    def prune(self, block: int, epoch: int, shards: tuple[int, ...]) -> Hashable:
        """See `interfaces.OwnerCalls`."""
        return self._actors[block].prune.remote(epoch, shards)

    def purge(self, block: int, epoch: int, shard: int, stages: tuple[str, ...]) -> Hashable:
        """See `interfaces.OwnerCalls`. Runs in separate threads, because a prune must not wait for earlier purges."""
        return self._actors[block].purge.options(concurrency_group="purges").remote(epoch, shard, stages)

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        """See `interfaces.OwnerCalls`. One Ray call for all of them."""
        return ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]

    def answer(self, call: Hashable, wait_seconds: float) -> Mapping[int, ShardView]:
        """See `interfaces.OwnerCalls`."""
        try:
            return ray.get(call, timeout=wait_seconds)
        except RayTaskError as error:
            cause = error.as_instanceof_cause()
            if isinstance(cause, S3TError):
                raise cause from error
            raise OwnerFailed(str(error)) from error
        except RayError as error:
            raise OwnerLost(f"the owner of a shard was lost: {error}", "it restarts automatically") from error
