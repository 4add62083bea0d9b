"""What of a shard can be trained. Pure.

In: its view, and the stages that nothing may rest on (given up, or waiting for a purge that was). Out: whether
there is anything, and of how many sequences.
"""

from __future__ import annotations

from collections.abc import Set

from s3t_ray.run.shard_view import ShardView


def trainable(view: ShardView, hopeless: Set[str]) -> bool:
    """Whether something is missing that does not rest on a hopeless stage."""
    if not hopeless:
        return bool(view.missing)
    return any(hopeless.isdisjoint(view.plan.stages[name].chain) for name in view.missing)


def sequences_to_train(view: ShardView, hopeless: Set[str]) -> int:
    """Sequences whose next stage can be trained, or is in training: more groups never have work here at once."""
    if not view.missing:
        return 0
    return sum(
        depth < len(chain) and hopeless.isdisjoint(chain[: depth + 1])
        for depth, chain in zip(view.depths, view.plan.chains, strict=True)
    )
