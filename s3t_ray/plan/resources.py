"""Computes the resources of a worker group, and how many groups fit on a cluster's nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError

Resources = Mapping[str, float]
"""The resources of one node by Ray's names: CPU, GPU, accelerator_type:A100, ..."""

A_TRACE = 0.001
"""The requested amount of a resource that only selects a kind of node."""


def bundles(config: Config) -> list[dict[str, float]]:
    """The Ray resources of one worker group, one bundle per rank."""
    workers = config.workers
    bundle: dict[str, float] = {"CPU": workers.cpus_per_rank}
    if workers.gpus_per_rank:
        bundle["GPU"] = workers.gpus_per_rank
    if workers.accelerator is not None:
        bundle[f"accelerator_type:{workers.accelerator}"] = A_TRACE
    return [bundle] * config.engine.ranks


def room(config: Config, nodes: Sequence[Resources]) -> int:
    """The number of the run's worker groups that fit on these nodes if they are empty, up to `workers.max_gpus`."""
    found, most = cluster_room(config, nodes), _limit(config)
    return found if most is None else min(found, most)


def cluster_room(config: Config, nodes: Sequence[Resources]) -> int:
    """The number of worker groups like those of `config` that fit on these nodes, whichever run they belong to.

    A rank never spans nodes; with strict_pack, neither does a group. Nodes may differ. Packing node by
    node is optimal because all bundles are equal.
    """
    ranks, bundle = config.engine.ranks, bundles(config)[0]
    if config.workers.strategy == "strict_pack":
        return sum(_fits(node, bundle) // ranks for node in nodes)
    return sum(_fits(node, bundle) for node in nodes) // ranks


def most_groups(config: Config) -> int:
    """The maximum number of worker groups of the run: one per sequence, or the configured limits."""
    most = config.shards * config.budget
    limits = (config.workers.autoscale_to, _limit(config))
    return min([most, *(limit for limit in limits if limit is not None)])


def _limit(config: Config) -> int | None:
    """The worker groups that `workers.max_gpus` allows; None: no limit."""
    workers = config.workers
    return None if workers.max_gpus is None else workers.max_gpus // (config.engine.ranks * workers.gpus_per_rank)


def check_room(config: Config, nodes: Sequence[Resources], groups: int | None = None) -> None:
    """Raise ClusterError if these nodes cannot hold `groups` worker groups (None: the number in the config)."""
    if groups is None:
        groups = 1 if config.workers.groups == "auto" else config.workers.groups
    found = room(config, nodes)
    if found < groups:
        bundle, ranks = bundles(config)[0], config.engine.ranks
        have = {name: sum(node.get(name, 0) for node in nodes) for name in bundle}
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in bundle}
        raise ClusterError(
            f"workers.groups = {config.workers.groups} needs {ranks} x {bundle} per group, but the {len(nodes)} nodes "
            f"have {have} together and at most {most} each: room for {found}",
            "lower workers.groups, engine.ranks, workers.cpus_per_rank or workers.gpus_per_rank, or add nodes; "
            "workers.autoscale_to requests them from an autoscaler",
        )


def shortage(config: Config, nodes: Sequence[Resources], groups: int) -> str:
    """One line on what `groups` worker groups are waiting for: a kind of node, or room on the existing nodes."""
    bundle, ranks = bundles(config)[0], config.engine.ranks
    needs = ", ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount != A_TRACE)
    kind = [name for name, amount in bundle.items() if amount == A_TRACE]
    rank = f"{ranks} ranks of {needs}" if ranks > 1 else needs
    group = f"{groups} worker group{'s wait' if groups > 1 else ' waits'} for {rank}{''.join(f' on {n}' for n in kind)}"
    able = sum(_fits(node, bundle) > 0 for node in nodes)
    if able:
        return f"{group}: the {able} of {len(nodes)} nodes that could hold it are in use"
    lacking = [name for name, amount in bundle.items() if all(node.get(name, 0) < amount for node in nodes)]
    return f"{group}: none of the {len(nodes)} nodes has {' or '.join(lacking) if lacking else 'all of that'}"


def _fits(node: Resources, bundle: Resources) -> int:
    """The number of such bundles that fit on the node."""
    return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in bundle.items())
