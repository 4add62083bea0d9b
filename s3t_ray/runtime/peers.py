"""The cluster for a scheduler's `Capacity`: its nodes, and the schedulers of other runs, queried through Ray."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from s3t_ray.plan.fair_shares import Claim
from s3t_ray.plan.resources import Resources
from s3t_ray.runtime.connect import NAMESPACE, actor_name, nodes

PREFIX = "scheduler-"
"""The prefix of schedulers' actor names (`connect.actor_name`)."""


class RayPeers:
    """See `interfaces.Peers`. For one scheduler. Used by one thread."""

    def __init__(self, storage_uri: str) -> None:
        self.own = actor_name("scheduler", storage_uri)
        self._asked: dict[ray.ObjectRef, str] = {}
        self._gone: set[str] = set()

    def nodes(self) -> list[Resources]:
        """See `interfaces.Peers`."""
        return nodes()

    def names(self) -> set[str]:
        """See `interfaces.Peers`."""
        return {
            actor["name"]
            for actor in ray.util.list_named_actors(all_namespaces=True)
            if actor["namespace"] == NAMESPACE and actor["name"].startswith(PREFIX)
        } - {self.own}

    def ask(self, name: str) -> None:
        """See `interfaces.Peers`."""
        self._gone.add(name)
        with suppress(ValueError):  # it died in the meantime
            other: Any = ray.get_actor(name, namespace=NAMESPACE)
            self._asked[other.claim.remote()] = name
            self._gone.discard(name)

    def answers(self, wait_seconds: float) -> dict[str, Claim | None]:
        """See `interfaces.Peers`."""
        found: dict[str, Claim | None] = dict.fromkeys(self._gone)
        self._gone.clear()
        if self._asked:
            futures = list(self._asked)
            for future in ray.wait(futures, num_returns=len(futures), timeout=wait_seconds)[0]:
                name = self._asked.pop(future)
                try:
                    found[name] = ray.get(future)
                except RayError:
                    found[name] = None
        return found
