"""Finds the placement groups of a run by name, to remove those that a dead scheduler left behind."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


def states() -> dict[str, str]:
    """Every placement group of the cluster: hexadecimal id -> PENDING, CREATED, RESCHEDULING or REMOVED."""
    return {identity: group["state"] for identity, group in ray.util.placement_group_table().items()}


def end_orphans(name: str) -> None:
    """Remove the placement groups of a dead scheduler, whose names start with `name` and a dash.

    Otherwise Ray keeps their resources reserved, and sometimes their actors alive.
    """
    for identity, group in ray.util.placement_group_table().items():
        if group["name"].startswith(f"{name}-") and group["state"] != "REMOVED":
            # By id, because a name is only found in the Ray namespace of the job that created the group.
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(identity))))
