"""How many worker groups a run may have now: its share of a cluster whose nodes and runs come and go.

In: the run's config and whether it trains. Out: a number of groups, for `workers.groups: auto`, and of those to ask
an autoscaler for (`demand.py`). The schedulers of the cluster tell one another what they claim; each works the
shares out for itself (`fair_shares.py`). Nothing is ever waited for but at the start: an answer that is late counts
next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from s3t_ray.config.schema import Config
from s3t_ray.plan.demand import Demand, demand, on_fixed_nodes
from s3t_ray.plan.fair_shares import Claim, Standing, fair_shares, groups_of
from s3t_ray.plan.resources import most_groups, room
from s3t_ray.runtime.connect import NAMESPACE, actor_name, nodes

SECONDS_BETWEEN = 5.0
FIRST_ANSWERS_SECONDS = 2.0
PREFIX = "scheduler-"
"""With which the names of schedulers begin (`cluster.actor_name`)."""
IDLE_AFTER_SECONDS = 30.0
"""A run that has had nothing to train for so long leaves room to those that have."""
REST_AFTER_SECONDS = 600.0
"""After so long with nothing to train its last groups end too, on nodes that stay: to load a base takes minutes."""


class Neighbours:
    """Of one run's scheduler, by one thread; `claim` may be read by others."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._own = actor_name("scheduler", config.storage.uri)
        self._claims: dict[str, Claim] = {}
        self._asked: dict[ray.ObjectRef, str] = {}
        self._next = 0.0
        self._idle = False
        self._busy_at = clock()
        self.claim = self._claim(room(config, nodes()))

    def first(self, to_train: Callable[[], int]) -> int:
        """Groups to start with: none where there is nothing to train; waits a moment for what the other runs claim.

        With an autoscaler none: the first look, which is due at once, knows what to ask for.
        """
        asked = self._config.workers.groups
        if self._config.workers.autoscale_to is not None:
            return 0
        self._ask()
        if self._asked and asked == "auto":
            ray.wait(list(self._asked), num_returns=len(self._asked), timeout=FIRST_ANSWERS_SECONDS)
        share = self._groups(room(self._config, nodes()))
        return min(share if asked == "auto" else asked, to_train())

    def look(self, idle: bool, held: int, to_train: Callable[[], int]) -> Demand | None:
        """Groups from now on; None: nothing was looked at, since the last look was a moment ago.

        `held`: groups that there are; `to_train`: sequences of which something is to be trained.
        """
        now = self._clock()
        begins, self._idle = self._idle and not idle and not held, idle
        if not idle:
            self._busy_at = now
        if now < self._next and not begins:  # what a deletion struck does not wait for its first group
            return None
        fits = room(self._config, nodes())
        share = self._groups(fits)
        idle_for = now - self._busy_at
        if self._config.workers.autoscale_to is not None:
            most = most_groups(self._config)
            return demand(most, min(share, fits), to_train(), held, idle_for >= IDLE_AFTER_SECONDS)
        if self._config.workers.groups != "auto":
            # As many as asked for, whatever room there is now: nodes that were lost may come back.
            share = self._config.workers.groups
        return Demand(on_fixed_nodes(share, to_train(), held, idle_for >= REST_AFTER_SECONDS))

    def _groups(self, fits: int) -> int:
        self._next = self._clock() + SECONDS_BETWEEN
        self.claim = self._claim(fits)
        self._hear()
        self._ask()
        shares = fair_shares({**self._claims, self._own: self.claim})
        return min(groups_of(shares[self._own], fits), most_groups(self._config))

    def _claim(self, fits: int) -> Claim:
        asked = self._config.workers.groups
        if asked != "auto":
            return Claim(min(1.0, asked / max(1, fits)), Standing.FIXED)
        wanted = min(1.0, most_groups(self._config) / max(1, fits))
        idle = self._clock() - self._busy_at >= IDLE_AFTER_SECONDS
        return Claim(wanted, Standing.IDLE if idle else Standing.TRAINING)

    def _ask(self) -> None:
        """Ask the other schedulers of this cluster, and forget those that are gone."""
        names = {
            actor["name"]
            for actor in ray.util.list_named_actors(all_namespaces=True)
            if actor["namespace"] == NAMESPACE and actor["name"].startswith(PREFIX)
        } - {self._own}
        self._claims = {name: claim for name, claim in self._claims.items() if name in names}
        for name in names - set(self._asked.values()):
            with suppress(ValueError):  # it died meanwhile
                other: Any = ray.get_actor(name, namespace=NAMESPACE)
                self._asked[other.claim.remote()] = name

    def _hear(self) -> None:
        if not self._asked:
            return
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for future in answered:
            name = self._asked.pop(future)
            try:
                claim = ray.get(future)
            except RayError:
                self._claims.pop(name, None)
                continue
            if claim is not None:
                self._claims[name] = claim
