"""A Ray cluster as the host of a scheduler: provides its actors, placement groups and metrics.

This module is thin: `scheduler/` makes the decisions. `loop.Host` and `interfaces.py` define the contracts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from s3t_ray.ensemble.answers import Answer
from s3t_ray.errors import S3TError, StoreError, TrainError
from s3t_ray.run.run import Run
from s3t_ray.run.stored_boundaries import with_boundaries
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.node_requests import NodeRequests
from s3t_ray.runtime.peers import RayPeers
from s3t_ray.runtime.ray_metrics import RayMetrics
from s3t_ray.runtime.shard_owners import ray_owners
from s3t_ray.runtime.worker_groups import RayWorkers
from s3t_ray.scheduler.shard import ShardOwners


class RayHost:
    """See `loop.Host`."""

    def __init__(self, run: Run, base: str) -> None:
        self._run = run
        self._base = base
        self.name = actor_name("scheduler", run.location.storage_uri)

    def peers(self) -> RayPeers:
        """See `loop.Host`."""
        return RayPeers(self._run.location.storage_uri)

    def workers(self, groups: int, wake: threading.Event) -> RayWorkers:
        """See `loop.Host`."""
        return RayWorkers(with_boundaries(self._run), self._base, groups, wake)

    def shards(self, epoch: int) -> ShardOwners:
        """See `loop.Host`."""
        return ray_owners(self._run, epoch)

    def requests(self) -> NodeRequests:
        """See `loop.Host`."""
        return NodeRequests(self._run.config)

    def replicas(self) -> Mapping[str, RayServingReplica]:
        """See `loop.Host`."""
        return find_replicas(self._run)

    def metrics(self) -> RayMetrics:
        """See `loop.Host`."""
        return RayMetrics(self._run.config.name)


class RayServingReplica:
    """See `interfaces.ServingReplica`, for a replica's actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def ask(self, version: int, chains: Mapping[int, tuple[str, ...]]) -> RayConfirmation:
        """See `interfaces.ServingReplica`."""
        return RayConfirmation(self._actor.set_live.remote(version, dict(chains)))

    def end(self) -> None:
        """See `interfaces.ServingReplica`."""
        ray.kill(self._actor)

    def beside_base(self, prompt: str, max_new_tokens: int, wait_seconds: float) -> tuple[str | None, Answer] | None:
        """See `Following.beside_base`. None: the replica died, or took longer than `wait_seconds`."""
        try:
            return ray.get(self._actor.beside_base.remote(prompt, max_new_tokens), timeout=wait_seconds)
        except S3TError:
            raise
        except RayError:
            return None


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
    """The run's serving replicas in this cluster, by name.

    A replica registers its name and then looks for a scheduler; a scheduler registers its name and then looks for
    replicas. So they cannot miss each other.
    """
    prefix = actor_name("replica", run.location.storage_uri)
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix):
            with contextlib.suppress(ValueError):  # it died in the meantime
                found[actor["name"]] = RayServingReplica(ray.get_actor(actor["name"], namespace=NAMESPACE))
    return found
