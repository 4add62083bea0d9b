"""A Ray cluster as the host of a scheduler: everything it commands is an actor, a placement group or a metric.

Thin: what is decided about these is decided in `scheduler/` (`loop.Host` and `interfaces.py` say what each must do).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from s3t_ray.errors import S3TError, StoreError, TrainError
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.run.stored_boundaries import with_boundaries
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.node_requests import NodeRequests
from s3t_ray.runtime.peers import RayPeers
from s3t_ray.runtime.ray_metrics import RayMetrics
from s3t_ray.runtime.worker_groups import RayWorkers
from s3t_ray.scheduler.interfaces import OwnerFailed, OwnerLost
from s3t_ray.scheduler.shard import Shard, ShardOwners


class RayHost:
    """See `loop.Host`."""

    def __init__(self, run: Run, base: str) -> None:
        self._run = run
        self._base = base
        self.name = actor_name("scheduler", run.location.storage_uri)

    def peers(self) -> RayPeers:
        """See `loop.Host`."""
        return RayPeers(self._run.location.storage_uri)

    def workers(self, groups: int) -> RayWorkers:
        """See `loop.Host`."""
        return RayWorkers(with_boundaries(self._run), self._base, groups)

    def shards(self, epoch: int) -> ShardOwners:
        """See `loop.Host`."""
        return ShardOwners(RayOwners(self._run.location.storage_uri), epoch, self._run.row.shards)

    def requests(self) -> NodeRequests:
        """See `loop.Host`."""
        return NodeRequests(self._run.config)

    def replicas(self) -> Mapping[str, RayServingReplica]:
        """See `loop.Host`."""
        return find_replicas(self._run)

    def metrics(self) -> RayMetrics:
        """See `loop.Host`."""
        return RayMetrics(self._run.config.name)


class RayOwners:
    """See `interfaces.OwnerCalls`: one `Shard` actor a shard; a call is the reference of its answer."""

    def __init__(self, run_uri: str) -> None:
        self._uri = run_uri
        self._actors: dict[int, Any] = {}

    def start(self, shard: int) -> None:
        """See `interfaces.OwnerCalls`."""
        # No CPU of its own: it reads the ledger and moves files, and must never wait for a trainer.
        # Several calls at once: a prune must not wait for the purge before it.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 3, "max_concurrency": 4}
        self._actors[shard] = ray.remote(Shard).options(**options).remote(self._uri, shard)

    def end(self, shard: int) -> None:
        """See `interfaces.OwnerCalls`."""
        ray.kill(self._actors.pop(shard))

    def view(self, shard: int) -> Hashable:
        """See `interfaces.OwnerCalls`."""
        return self._actors[shard].view.remote()

    def prune(self, shard: int, epoch: int) -> Hashable:
        """See `interfaces.OwnerCalls`."""
        return self._actors[shard].prune.remote(epoch)

    def purge(self, shard: int, epoch: int, stages: tuple[str, ...]) -> Hashable:
        """See `interfaces.OwnerCalls`."""
        return self._actors[shard].purge.remote(epoch, stages)

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        """See `interfaces.OwnerCalls`. One question for all calls."""
        return ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]

    def answer(self, call: Hashable, wait_seconds: float) -> ShardView:
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


class RayServingReplica:
    """See `interfaces.ServingReplica`, of a replica's actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def ask(self, version: int, chains: Mapping[int, tuple[str, ...]]) -> RayConfirmation:
        """See `interfaces.ServingReplica`."""
        return RayConfirmation(self._actor.set_live.remote(version, dict(chains)))

    def end(self) -> None:
        """See `interfaces.ServingReplica`."""
        ray.kill(self._actor)


class RayConfirmation:
    """See `interfaces.Confirmation`."""

    def __init__(self, future: ray.ObjectRef) -> None:
        self._future = future

    def version(self, wait_seconds: float) -> int | None:
        """See `interfaces.Confirmation`."""
        try:
            return ray.get(self._future, timeout=wait_seconds)
        except (StoreError, TrainError):
            raise
        except RayError:
            return None


def find_replicas(run: Run) -> dict[str, RayServingReplica]:
    """The run's serving replicas in this cluster by name. Whoever begins to serve has its name first and looks
    for a scheduler then; a scheduler looks for names after it has its own: they cannot miss each other."""
    prefix = actor_name("replica", run.location.storage_uri)
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix):
            with contextlib.suppress(ValueError):  # it died meanwhile
                found[actor["name"]] = RayServingReplica(ray.get_actor(actor["name"], namespace=NAMESPACE))
    return found
