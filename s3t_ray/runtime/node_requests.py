"""Asking the cluster's autoscaler for nodes: a pending placement group for each worker group that has no room.

In: how many. An autoscaler sees a placement group that waits as one demand, with its bundles, its strategy and its
kind of GPU; it goes with the scheduler that made it, and other runs have theirs beside it. (`ray.autoscaler.sdk.
request_resources` is one list for the whole cluster: a second run overwrites the first one's, and it outlives both.)
A worker group that gets room takes over the placement group that waited for it: ended and made again, it would look
like one demand more for a moment. No actor waits in one: for those Ray warns every few seconds.
"""

from __future__ import annotations

import itertools
import secrets

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from s3t_ray.config.schema import Config
from s3t_ray.plan.resources import bundles
from s3t_ray.runtime.connect import actor_name
from s3t_ray.runtime.placement_groups import end_orphans, states


class NodeRequests:
    """Of one scheduler, by one thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._name = actor_name("request", config.storage.uri)
        self._token = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._open: list[PlacementGroup] = []
        end_orphans(self._name)

    def take(self, groups: int) -> list[PlacementGroup]:
        """Placement groups for so many worker groups that begin, as far as there are; those with room first."""
        if groups <= 0 or not self._open:
            return []
        waiting = self._waiting()
        self._open.sort(key=lambda each: each in waiting)
        taken, self._open = self._open[:groups], self._open[groups:]
        return taken

    def ask(self, groups: int) -> None:
        """Ask for nodes for so many worker groups, in place of what was asked for before.

        One that has room all the same, and was not taken, has room that is others' share: it is given back.
        """
        waiting = self._waiting()
        kept = [each for each in self._open if each in waiting][:groups]
        for each in self._open:
            if each not in kept:
                remove_placement_group(each)
        self._open = kept + [self._begin() for _ in range(groups - len(kept))]

    def _waiting(self) -> list[PlacementGroup]:
        now = states() if self._open else {}
        return [each for each in self._open if now.get(each.id.hex()) == "PENDING"]

    def close(self) -> None:
        """Withdraw all requests."""
        self.ask(0)

    def _begin(self) -> PlacementGroup:
        return placement_group(
            bundles(self._config),
            strategy=self._config.workers.strategy.upper(),
            name=f"{self._name}-{self._token}-{next(self._numbers)}",
        )
