"""Placement groups of a run by name: to find those that a scheduler left behind."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


def states() -> dict[str, str]:
    """Of every placement group of the cluster: hexadecimal id -> PENDING, CREATED, RESCHEDULING, REMOVED."""
    return {identity: group["state"] for identity, group in ray.util.placement_group_table().items()}


def end_orphans(name: str) -> None:
    """End the placement groups whose names begin so, of a scheduler that died: Ray keeps their room, and at times
    the actors in them."""
    for identity, group in ray.util.placement_group_table().items():
        if group["name"].startswith(f"{name}-") and group["state"] != "REMOVED":
            # By id: a name is found only in the Ray namespace of the job that made the group.
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(identity))))
