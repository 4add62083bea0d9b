"""What a worker group needs of a cluster, and how many groups fit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError


def bundles(config: Config) -> list[dict[str, float]]:
    """Ray resources of one worker group, a bundle a rank."""
    bundle: dict[str, float] = {"CPU": config.workers.cpus_per_rank}
    if config.workers.gpus_per_rank:
        bundle["GPU"] = config.workers.gpus_per_rank
    return [bundle] * config.engine.ranks


def group_count(config: Config, total: Mapping[str, float]) -> int:
    """How many worker groups to start on a cluster of `total` resources.

    `auto` fills the cluster, up to one group a sequence. Raises ClusterError when not even one fits,
    or fewer than the config asks for.
    """
    need: dict[str, float] = {}
    for bundle in bundles(config):
        for resource, amount in bundle.items():
            need[resource] = need.get(resource, 0) + amount
    room = min(int(total.get(resource, 0) // amount) for resource, amount in need.items())
    asked = config.workers.groups
    if room < (1 if asked == "auto" else asked):
        have = {resource: total.get(resource, 0) for resource in need}
        raise ClusterError(
            f"workers.groups = {asked} needs {need} a group, but the whole cluster has {have}: room for {room}",
            "lower workers.groups, engine.ranks, workers.cpus_per_rank or workers.gpus_per_rank, or add nodes",
        )
    return min(room, config.shards * config.budget) if asked == "auto" else asked
