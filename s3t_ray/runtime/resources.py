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
    asked = config.workers.groups
    check_room(config, total, 1 if asked == "auto" else asked)
    return standing_count(config, total)


def check_room(config: Config, total: Mapping[str, float], groups: int) -> None:
    """Raise ClusterError when `total` resources do not hold this many worker groups."""
    room = _room(config, total)
    if room < groups:
        need = _need(config)
        have = {resource: total.get(resource, 0) for resource in need}
        raise ClusterError(
            f"workers.groups = {config.workers.groups} needs {need} a group, but the whole cluster has {have}: "
            f"room for {room}",
            "lower workers.groups, engine.ranks, workers.cpus_per_rank or workers.gpus_per_rank, or add nodes",
        )


def standing_count(config: Config, total: Mapping[str, float]) -> int:
    """The worker groups of a scheduler that begins on `total` resources, which nodes may have left a moment ago.

    Those without room wait for nodes to come, and the others train meanwhile. Never below 1.
    """
    asked = config.workers.groups
    return asked if asked != "auto" else max(1, min(_room(config, total), config.shards * config.budget))


def _need(config: Config) -> dict[str, float]:
    need: dict[str, float] = {}
    for bundle in bundles(config):
        for resource, amount in bundle.items():
            need[resource] = need.get(resource, 0) + amount
    return need


def _room(config: Config, total: Mapping[str, float]) -> int:
    return min(int(total.get(resource, 0) // amount) for resource, amount in _need(config).items())
