"""How many worker groups a run has and asks an autoscaler for, under `workers.autoscale_to`. Pure.

In: its share of the nodes that are there, and what there is to train. Out: groups to have now, and groups to ask
nodes for. Invariants, each with a test: together never more than `most`, nor than there are sequences to train;
never more groups than the share; nothing is asked for while there is nothing to train; a run that rests has none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """Worker groups."""

    groups: int  # to have on the nodes that are there
    missing: int = 0  # to ask for nodes for


def demand(most: int, share: int, to_train: int, held: int, resting: bool) -> Demand:
    """What to have and to ask for.

    `most`: groups that the run may have at all; `share`: that it may have on the nodes that are there; `to_train`:
    sequences of which something is to be trained, or is in training; `held`: groups it has; `resting`: there has
    been nothing to train for long, so its nodes may go.
    """
    if resting:
        return Demand(0)
    if not to_train:
        return Demand(min(share, held))  # a deletion may come any moment: the base model stays loaded for a while
    wanted = min(most, to_train)
    groups = min(share, wanted)
    return Demand(groups, wanted - groups)


def on_fixed_nodes(share: int, to_train: int, held: int, resting: bool) -> int:
    """Worker groups to have where no node is ever asked for: they start when there is something to train, stay for
    what comes next, and end when there has been nothing for long. Arguments as in `demand`.
    """
    return 0 if resting else min(share, max(to_train, held))
