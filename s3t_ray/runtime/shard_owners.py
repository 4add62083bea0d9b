"""The owners of the shards as Ray actors: a few light processes for however many shards there are.

Thin: whom to ask, and when to replace whom, is decided in `scheduler/shard.py`.
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
"""Calls that an owner works on at a time, of each kind."""


def ray_owners(run: Run, epoch: int) -> ShardOwners:
    """The owners of all shards of a run, as actors of the scheduler that made them."""
    return ShardOwners(RayOwners(run), epoch, run.row.shards)


class RayOwners:
    """See `interfaces.OwnerCalls`: a `ShardOwner` actor a block; a call is the reference of its answer."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._actors: dict[int, Any] = {}

    def start(self, block: int, shards: tuple[int, ...]) -> None:
        """See `interfaces.OwnerCalls`."""
        names = [shard_folder(shard) for shard in (shards[0], shards[-1])]
        named = "-to-".join(dict.fromkeys(names))
        actor = ray.remote(concurrency_groups={"purges": THREADS})(ShardOwner)
        self._actors[block] = actor.options(
            # Its name is for people, who see it in `ray list actors`; a predecessor's may still be there.
            name=f"owner-{self._run.config.name}-shards-{named}-{secrets.token_hex(4)}",
            namespace=NAMESPACE,
            # No CPU of its own: it reads the ledger and moves files, and must never wait for a trainer.
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
            max_concurrency=THREADS,
            # Rows set aside as malformed are purged by their ids' digests: where the scheduler is, the keys are.
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
        """See `interfaces.OwnerCalls`. In threads of its own: a prune must not wait for the purges before it."""
        return self._actors[block].purge.options(concurrency_group="purges").remote(epoch, shard, stages)

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        """See `interfaces.OwnerCalls`. One question for all calls."""
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
            raise OwnerLost(f"the owner of a shard was lost: {error}", "it is started again by itself") from error
