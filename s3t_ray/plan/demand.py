"""Computes how many worker groups a run keeps and requests from an autoscaler, with `workers.autoscale_to`. Pure.

In: the run's share of the existing nodes, and the amount of work. Out: groups to run now, and groups to request nodes
for. Invariants, each with a test: their sum never exceeds `most` or the number of sequences to train; the groups never
exceed the share; nothing is requested while there is nothing to train; an idle run has no groups.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """Numbers of worker groups."""

    groups: int  # to run on the existing nodes
    missing: int = 0  # to request more nodes for


def demand(most: int, share: int, to_train: int, held: int, resting: bool) -> Demand:
    """The worker groups to run and to request.

    `most`: the maximum for the run; `share`: the maximum on the existing nodes; `to_train`: sequences with a stage to
    train or in training; `held`: groups that the run has now; `resting`: there has been nothing to train for a long
    time, so its nodes can be released.
    """
    if resting:
        return Demand(0)
    if not to_train:
        return Demand(min(share, held))  # keep the base model loaded for a while, since a deletion may arrive
    wanted = min(most, to_train)
    groups = min(share, wanted)
    return Demand(groups, wanted - groups)


def on_fixed_nodes(share: int, to_train: int, held: int, resting: bool) -> int:
    """The worker groups to run without an autoscaler.

    They start when there is something to train, stay ready for later work, and stop after a long idle time. Arguments
    as in `demand`.
    """
    return 0 if resting else min(share, max(to_train, held))
