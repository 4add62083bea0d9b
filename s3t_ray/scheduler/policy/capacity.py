"""How many worker groups a run may have now: its share of a cluster whose nodes and runs come and go.

In: the run's config, whether it trains, the cluster behind an interface (`Peers`). Out: a number of groups, for
`workers.groups: auto`, and of those to ask an autoscaler for (`plan/demand.py`). The schedulers of a cluster tell one
another what they claim; each works the shares out for itself (`plan/fair_shares.py`). Nothing is ever waited for but
at the start: an answer that is late counts next time. No Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from s3t_ray.config.schema import Config
from s3t_ray.plan.demand import Demand, demand, on_fixed_nodes
from s3t_ray.plan.fair_shares import Claim, Standing, fair_shares, groups_of
from s3t_ray.plan.resources import most_groups, room
from s3t_ray.scheduler.interfaces import Peers

SECONDS_BETWEEN = 5.0
FIRST_ANSWERS_SECONDS = 2.0
IDLE_AFTER_SECONDS = 30.0
"""A run that has had nothing to train for so long leaves room to those that have."""
REST_AFTER_SECONDS = 600.0
"""After so long with nothing to train its last groups end too, on nodes that stay: to load a base takes minutes."""


class Capacity:
    """Of one run's scheduler, by one thread; `claim` may be read by others."""

    def __init__(self, config: Config, peers: Peers, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._peers = peers
        self._clock = clock
        self._claims: dict[str, Claim] = {}
        self._asked: set[str] = set()
        self._next = clock()
        self._idle = False
        self._busy_at = clock()
        self.claim = self._claim(room(config, peers.nodes()))

    def first(self, to_train: Callable[[], int]) -> int:
        """Groups to start with: none where there is nothing to train; waits a moment for what the other runs claim.

        With an autoscaler none: the first look, which is due at once, knows what to ask for.
        """
        asked = self._config.workers.groups
        if self._config.workers.autoscale_to is not None:
            return 0
        self._ask()
        if asked == "auto":
            self._hear(FIRST_ANSWERS_SECONDS)
        share = self._groups(room(self._config, self._peers.nodes()))
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
        fits = room(self._config, self._peers.nodes())
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
        """Ask the other schedulers of this cluster, and forget those that are gone."""
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
"""What is reserved for one worker group on a node: it passes through unseen."""


class ElasticGroups(Protocol):
    """Worker groups whose number may change."""

    @property
    def count(self) -> int:
        """Groups that there are, those that still start included."""
        ...

    def waiting(self) -> int:
        """Groups that have no room yet."""
        ...

    def resize(self, count: int, rooms: Iterable[Room] = ()) -> None:
        """Have so many from now on; `rooms` for the first of those that begin."""
        ...


class RoomRequests(Protocol):
    """What an autoscaler is asked for."""

    def take(self, groups: int) -> list[Room]:
        """Rooms for so many groups that begin, as far as there are."""
        ...

    def ask(self, groups: int) -> None:
        """Ask for rooms for so many groups, in place of what was asked for before."""
        ...


class Autoscaling:
    """Gives a run the groups of its share, and asks for the nodes that it lacks. Of one scheduler, by one thread."""

    def __init__(self, capacity: Capacity, groups: ElasticGroups, requests: RoomRequests) -> None:
        self._capacity = capacity
        self._groups = groups
        self._requests = requests

    def adjust(self, idle: bool, to_train: Callable[[], int]) -> int | None:
        """See `Capacity.look`; called in every round. Groups that wait for nodes, or for room; None: not looked at."""
        found = self._capacity.look(idle, self._groups.count, to_train)
        if found is None:
            return None
        self._groups.resize(found.groups, self._requests.take(found.groups - self._groups.count))
        self._requests.ask(found.missing)
        return self._groups.waiting() + found.missing
