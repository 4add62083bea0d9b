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
    """How many worker groups fit these nodes at once, if nothing else is on them, under `workers.max_gpus`.

    A rank never spans nodes, nor does a group under strict_pack; nodes may differ. Ranks are packed
    node by node, which for bundles that are all alike wastes nothing.
    """
    workers, ranks = config.workers, config.engine.ranks
    bundle = bundles(config)[0]
    if workers.strategy == "strict_pack":
        groups = sum(_fits(node, bundle) // ranks for node in nodes)
    else:
        groups = sum(_fits(node, bundle) for node in nodes) // ranks
    if workers.max_gpus is not None:
        groups = min(groups, workers.max_gpus // (ranks * workers.gpus_per_rank))
    return groups


def most_groups(config: Config) -> int:
    """More worker groups than this the run never has: one a sequence has a stage to train, or its own limits."""
    workers, gpus = config.workers, config.engine.ranks * config.workers.gpus_per_rank
    most = config.shards * config.budget
    if workers.autoscale_to is not None:
        most = min(most, workers.autoscale_to)
    return most if workers.max_gpus is None else min(most, workers.max_gpus // gpus)


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
