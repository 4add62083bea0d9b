"""What of a shard can be trained. Pure, but for `first_sequences`, which reads the ledger.

In: its view, and the stages that nothing may rest on (given up, or waiting for a purge that was). Out: whether
there is anything, and of how many sequences.
"""

from __future__ import annotations

from collections.abc import Set

from s3t_ray.plan.schedule import healing_due
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard


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


def first_sequences(run: Run) -> int:
    """Sequences that a scheduler of `run` which begins now has something to train of, by its healing policy."""
    views = (view_shard(run, shard) for shard in range(run.row.shards))
    policy = run.config.requeue
    return sum(
        sequences_to_train(view, frozenset())
        for view in views
        if healing_due(policy, view.depth, view.ever_complete, None)
    )
