"""What a worker group needs of a cluster, and how many groups fit its nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError

Resources = Mapping[str, float]
"""Of one node, as Ray names them: CPU, GPU, accelerator_type:A100, ..."""

A_TRACE = 0.001
"""Of a resource that only says what kind a node is."""


def bundles(config: Config) -> list[dict[str, float]]:
    """Ray resources of one worker group, a bundle a rank."""
    workers = config.workers
    bundle: dict[str, float] = {"CPU": workers.cpus_per_rank}
    if workers.gpus_per_rank:
        bundle["GPU"] = workers.gpus_per_rank
    if workers.accelerator is not None:
        bundle[f"accelerator_type:{workers.accelerator}"] = A_TRACE
    return [bundle] * config.engine.ranks


def room(config: Config, nodes: Sequence[Resources]) -> int:
    """How many of its worker groups fit these nodes at once, if nothing else is on them, under `workers.max_gpus`."""
    found, most = cluster_room(config, nodes), _limit(config)
    return found if most is None else min(found, most)


def cluster_room(config: Config, nodes: Sequence[Resources]) -> int:
    """How many worker groups like those of `config` fit these nodes at once, whosever they are.

    A rank never spans nodes, nor does a group under strict_pack; nodes may differ. Ranks are packed
    node by node, which for bundles that are all alike wastes nothing.
    """
    ranks, bundle = config.engine.ranks, bundles(config)[0]
    if config.workers.strategy == "strict_pack":
        return sum(_fits(node, bundle) // ranks for node in nodes)
    return sum(_fits(node, bundle) for node in nodes) // ranks


def most_groups(config: Config) -> int:
    """More worker groups than this the run never has: one a sequence has a stage to train, or its own limits."""
    most = config.shards * config.budget
    limits = (config.workers.autoscale_to, _limit(config))
    return min([most, *(limit for limit in limits if limit is not None)])


def _limit(config: Config) -> int | None:
    """Worker groups that `workers.max_gpus` allows; None: it sets no limit."""
    workers = config.workers
    return None if workers.max_gpus is None else workers.max_gpus // (config.engine.ranks * workers.gpus_per_rank)


def check_room(config: Config, nodes: Sequence[Resources], groups: int | None = None) -> None:
    """Raise ClusterError when these nodes do not hold this many worker groups; None: what the config asks for."""
    if groups is None:
        groups = 1 if config.workers.groups == "auto" else config.workers.groups
    found = room(config, nodes)
    if found < groups:
        bundle, ranks = bundles(config)[0], config.engine.ranks
        have = {name: sum(node.get(name, 0) for node in nodes) for name in bundle}
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in bundle}
        raise ClusterError(
            f"workers.groups = {config.workers.groups} needs {ranks} x {bundle} a group, but the {len(nodes)} nodes "
            f"have {have} together and at most {most} each: room for {found}",
            "lower workers.groups, engine.ranks, workers.cpus_per_rank or workers.gpus_per_rank, or add nodes; "
            "workers.autoscale_to asks an autoscaler for them",
        )


def shortage(config: Config, nodes: Sequence[Resources], groups: int) -> str:
    """What `groups` worker groups that do not start wait for, in one line: a kind of node, or room on those there."""
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
    """Bundles like this one that fit the node."""
    return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in bundle.items())
