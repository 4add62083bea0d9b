"""Requests nodes from the cluster's autoscaler with a pending placement group for each worker group without room.

The autoscaler sees a pending placement group as demand, with its bundles, strategy and kind of GPU. It ends with the
scheduler that created it, and is independent of other runs. (`ray.autoscaler.sdk.request_resources` is one list for the
entire cluster: a second run would overwrite the first one's, and it would outlive both.) A worker group that gets room
reuses its placement group, because recreating it would briefly look like additional demand. No actor waits in a pending
group, because Ray would log a warning every few seconds.
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
    """The node requests of one scheduler. Used by one thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._name = actor_name("request", config.storage.uri)
        self._token = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._open: list[PlacementGroup] = []
        end_orphans(self._name)

    def take(self, groups: int) -> list[PlacementGroup]:
        """Hand over up to `groups` placement groups for new worker groups, those with room first."""
        if groups <= 0 or not self._open:
            return []
        waiting = self._waiting()
        self._open.sort(key=lambda each: each in waiting)
        taken, self._open = self._open[:groups], self._open[groups:]
        return taken

    def ask(self, groups: int) -> None:
        """Request nodes for `groups` worker groups. Replaces all earlier requests.

        Placement groups that have room but were not taken use other runs' share, so they are removed.
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
