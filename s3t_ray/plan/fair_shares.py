"""Divides a cluster among its runs. Pure: each run's scheduler computes it independently, and all agree.

In: the claim of each run. Out: each run's share of the cluster. Invariants, each with a test: the shares never
exceed the cluster; no run gets more than its claim; a fixed number of worker groups is granted in full; training
runs share the rest equally (what one cannot use goes to the others); idle runs get what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Standing(IntEnum):
    """The priority of a run; the lowest value is served first."""

    FIXED = 0  # workers.groups is a number, reserved when its scheduler started
    TRAINING = 1
    IDLE = 2


@dataclass(frozen=True)
class Claim:
    """The share of the cluster that a run can use, from 0 to 1."""

    share: float
    standing: Standing


def fair_shares(claims: Mapping[str, Claim]) -> dict[str, float]:
    """The share of each run: max-min fair within a standing, in order of standing."""
    given: dict[str, float] = {}
    left = 1.0
    for standing in Standing:
        peers = {run: claim.share for run, claim in claims.items() if claim.standing is standing}
        shares = _level(peers, left)
        left = max(0.0, left - sum(shares.values()))
        given |= shares
    return given


def groups_of(share: float, room: int, at_least: int = 1) -> int:
    """The number of worker groups in a share of a cluster that fits `room` of them; at least `at_least`."""
    return max(at_least, int(share * room + 1e-6))


def _level(wanted: Mapping[str, float], capacity: float) -> dict[str, float]:
    """Divide `capacity` by max-min fairness (water-filling), the smallest claims first."""
    given: dict[str, float] = {}
    left = capacity
    for number, run in enumerate(sorted(wanted, key=lambda name: (wanted[name], name))):
        given[run] = min(wanted[run], left / (len(wanted) - number))
        left -= given[run]
    return given
