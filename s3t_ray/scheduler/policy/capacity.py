"""Computes how many worker groups a run may have now: its share of a cluster whose nodes and runs come and go.

In: the run's config, whether it trains, the cluster behind an interface (`Peers`). Out: the number of groups for
`workers.groups: auto`, and the number to request from an autoscaler (`plan/demand.py`). The schedulers of a cluster
exchange their claims, and each computes the shares itself (`plan/fair_shares.py`). It waits for answers only at the
start; a late answer counts next time. No Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from s3t_ray.config.schema import Config
from s3t_ray.plan.demand import Demand, demand, on_fixed_nodes
from s3t_ray.plan.fair_shares import Claim, Standing, fair_shares, groups_of
from s3t_ray.plan.resources import cluster_room, most_groups
from s3t_ray.scheduler.interfaces import Peers

SECONDS_BETWEEN = 5.0
FIRST_ANSWERS_SECONDS = 2.0
IDLE_AFTER_SECONDS = 30.0
"""Seconds without work after which a run leaves its room to others."""
REST_AFTER_SECONDS = 600.0
"""Seconds without work until the last groups on permanent nodes end; long, as loading a base takes minutes."""


class Capacity:
    """Belongs to one run's scheduler and one thread; other threads may read `claim`."""

    def __init__(self, config: Config, peers: Peers, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._peers = peers
        self._clock = clock
        self._claims: dict[str, Claim] = {}
        self._asked: set[str] = set()
        self._next = clock()
        self._idle = False
        self._busy_at = clock()
        self.claim = self._claim(cluster_room(config, peers.nodes()))

    def first(self, to_train: Callable[[], int]) -> int:
        """Groups to start with, none if there is nothing to train. Briefly waits for the claims of other runs.

        Returns none with an autoscaler: the first `look`, due immediately, determines what to request.
        """
        asked = self._config.workers.groups
        if self._config.workers.autoscale_to is not None:
            return 0
        self._ask()
        if asked == "auto":
            self._hear(FIRST_ANSWERS_SECONDS)
        share = self._groups(cluster_room(self._config, self._peers.nodes()))
        return min(share if asked == "auto" else asked, to_train())

    def look(self, idle: bool, held: int, to_train: Callable[[], int]) -> Demand | None:
        """Groups from now on; None if the last look was too recent.

        `held`: existing groups; `to_train`: returns the number of sequences with something to train.
        """
        now = self._clock()
        begins, self._idle = self._idle and not idle and not held, idle
        if not idle:
            self._busy_at = now
        if now < self._next and not begins:  # a deletion must not wait for its first group
            return None
        fits = cluster_room(self._config, self._peers.nodes())
        share = self._groups(fits)
        idle_for = now - self._busy_at
        if self._config.workers.autoscale_to is not None:
            most = most_groups(self._config)
            return demand(most, min(share, fits), to_train(), held, idle_for >= IDLE_AFTER_SECONDS)
        if self._config.workers.groups != "auto":
            # All requested groups, whatever room there is now: lost nodes may come back.
            share = self._config.workers.groups
        return Demand(on_fixed_nodes(share, to_train(), held, idle_for >= REST_AFTER_SECONDS))

    def _groups(self, fits: int) -> int:
        self._next = self._clock() + SECONDS_BETWEEN
        self.claim = self._claim(fits)
        self._hear()
        self._ask()
        own = self._peers.own
        return min(groups_of(fair_shares({**self._claims, own: self.claim})[own], fits), most_groups(self._config))

    def _claim(self, fits: int) -> Claim:
        asked = self._config.workers.groups
        if asked != "auto":
            return Claim(min(1.0, asked / max(1, fits)), Standing.FIXED)
        wanted = min(1.0, most_groups(self._config) / max(1, fits))
        idle = self._clock() - self._busy_at >= IDLE_AFTER_SECONDS
        return Claim(wanted, Standing.IDLE if idle else Standing.TRAINING)

    def _ask(self) -> None:
        """Ask the other schedulers of this cluster for their claims, and forget those that are gone."""
        names = self._peers.names()
        self._claims = {name: claim for name, claim in self._claims.items() if name in names}
        for name in sorted(names - self._asked):
            self._asked.add(name)
            self._peers.ask(name)

    def _hear(self, wait_seconds: float = 0.0) -> None:
        if not self._asked:
            return
        for name, claim in self._peers.answers(wait_seconds).items():
            self._asked.discard(name)
            if claim is None:
                self._claims.pop(name, None)
            else:
                self._claims[name] = claim


Room = Any
"""A reservation for one worker group on a node; opaque here."""


class ElasticGroups(Protocol):
    """Worker groups whose number can change."""

    @property
    def count(self) -> int:
        """Existing groups, including those that are starting."""
        ...

    def waiting(self) -> int:
        """Groups without room so far."""
        ...

    def resize(self, count: int, rooms: Iterable[Room] = ()) -> None:
        """Change the number of groups to `count`; `rooms` are for the first new ones."""
        ...


class RoomRequests(Protocol):
    """Requests to an autoscaler."""

    def take(self, groups: int) -> list[Room]:
        """Take available rooms for up to `groups` new groups."""
        ...

    def ask(self, groups: int) -> None:
        """Request rooms for this many groups, replacing the earlier request."""
        ...


class Autoscaling:
    """Gives a run its share of groups, and requests missing nodes. Belongs to one scheduler and one thread."""

    def __init__(self, capacity: Capacity, groups: ElasticGroups, requests: RoomRequests) -> None:
        self._capacity = capacity
        self._groups = groups
        self._requests = requests

    def adjust(self, idle: bool, to_train: Callable[[], int]) -> int | None:
        """See `Capacity.look`; called every round. Returns groups that wait for nodes or room; None: not due."""
        found = self._capacity.look(idle, self._groups.count, to_train)
        if found is None:
            return None
        self._groups.resize(found.groups, self._requests.take(found.groups - self._groups.count))
        self._requests.ask(found.missing)
        return self._groups.waiting() + found.missing
