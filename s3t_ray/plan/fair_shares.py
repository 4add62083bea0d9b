"""How runs on one cluster share it. Pure: each run's scheduler works it out for itself, and all agree.

In: what each run claims. Out: what each gets, as a share of the cluster. Invariants, each with a test: no
more is given than there is; nobody gets more than it asked for; a fixed number of worker groups is given
whole; runs that train share the rest equally (what one cannot use goes to the others); runs with nothing
to train get what they leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Standing(IntEnum):
    """Who is served first."""

    FIXED = 0  # workers.groups is a number: taken when its scheduler started
    TRAINING = 1
    IDLE = 2


@dataclass(frozen=True)
class Claim:
    """What a run could use: a share of the cluster, 0 to 1."""

    share: float
    standing: Standing


def fair_shares(claims: Mapping[str, Claim]) -> dict[str, float]:
    """The share of each run: max-min fair among those of one standing, one standing after another."""
    given: dict[str, float] = {}
    left = 1.0
    for standing in Standing:
        peers = {run: claim.share for run, claim in claims.items() if claim.standing is standing}
        shares = _level(peers, left)
        left = max(0.0, left - sum(shares.values()))
        given |= shares
    return given


def groups_of(share: float, room: int, at_least: int = 1) -> int:
    """Whole worker groups, of `room` that fit the cluster, in a share of it; one at least, to go on at all."""
    return max(at_least, int(share * room + 1e-6))


def _level(wanted: Mapping[str, float], capacity: float) -> dict[str, float]:
    """Pour `capacity` over the claims, as water finds its level: the smallest are filled first."""
    given: dict[str, float] = {}
    left = capacity
    for number, run in enumerate(sorted(wanted, key=lambda name: (wanted[name], name))):
        given[run] = min(wanted[run], left / (len(wanted) - number))
        left -= given[run]
    return given
