"""Compares the Monte Carlo forecast of deletions with the closed form, and its speed with a plain loop.

    python benchmarks/forecast.py

Every result must be within 3 standard errors of the closed form, if there is one, and of the plain loop, which draws
one deletion after another. Writes benchmarks/results/forecast.json. The exit code is 1 if a result is off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from s3t_ray.plan.forecast import expected_deletions, simulate_deletions
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
TRIALS = 100_000
LOOP_TRIALS = 300
MOST_ERRORS = 3.0

Chances = Sequence[Sequence[float]] | None


@dataclass(frozen=True)
class Row:
    """One run's deletions until every shard is dead."""

    shards: int
    slices: int
    budget: int
    pattern: str
    closed_form: float | None  # None for unequal probabilities
    simulated: float
    standard_error: float
    loop: float
    loop_error: float
    microseconds_a_trial: float
    loop_microseconds_a_trial: float

    @property
    def speedup(self) -> float:
        return self.loop_microseconds_a_trial / self.microseconds_a_trial

    @property
    def errors_from_closed_form(self) -> float:
        """Distance in standard errors; 0 without a closed form."""
        return 0.0 if self.closed_form is None else abs(self.simulated - self.closed_form) / self.standard_error

    @property
    def errors_from_loop(self) -> float:
        return abs(self.simulated - self.loop) / (self.standard_error**2 + self.loop_error**2) ** 0.5

    @property
    def right(self) -> bool:
        return max(self.errors_from_closed_form, self.errors_from_loop) <= MOST_ERRORS


@dataclass(frozen=True)
class Result:
    trials: int
    loop_trials: int
    rows: tuple[Row, ...]


def plain_loop(firsts: Sequence[Sequence[int]], slices: int, chances: Chances, random: Random) -> int:
    """One trial: deletions until no shard has a sequence with an intact first slice."""
    shards = len(firsts)
    spared = [set(own) for own in firsts]
    alive, deletions = shards, 0
    places = [(shard, index) for shard in range(shards) for index in range(slices)]
    weights = None if chances is None else [chance for own in chances for chance in own]
    while alive:
        if weights is None:
            shard, index = random.randrange(shards), random.randrange(slices)
        else:
            ((shard, index),) = random.choices(places, weights)
        deletions += 1
        if index in spared[shard]:
            spared[shard].discard(index)
            if not spared[shard]:
                alive -= 1
    return deletions


def compare(shards: int, slices: int, budget: int, skewed: bool = False) -> Row:
    """Cyclic orders; `skewed`: slice k is hit in proportion to 1 / (k + 1)."""
    step = max(1, slices // budget)
    firsts = [[(number * step) % slices for number in range(budget)]] * shards
    orders = [tuple(tuple((first + s) % slices for s in range(slices)) for first in own) for own in firsts]
    chances: Chances = None
    if skewed:
        total = shards * sum(1 / (index + 1) for index in range(slices))
        chances = [[1 / (index + 1) / total for index in range(slices)] for _ in range(shards)]
    simulate_deletions(orders, 100, 0, chances)  # first use of numpy's generators
    began = time.process_time()
    found = simulate_deletions(orders, TRIALS, 1, chances)
    took = time.process_time() - began
    random = Random(2)
    began = time.process_time()
    loop = [plain_loop(firsts, slices, chances, random) for _ in range(LOOP_TRIALS)]
    loop_took = time.process_time() - began
    mean = sum(loop) / LOOP_TRIALS
    spread = sum((one - mean) ** 2 for one in loop) / (LOOP_TRIALS - 1)
    return Row(
        shards,
        slices,
        budget,
        "1/k" if skewed else "uniform",
        None if skewed else expected_deletions(shards, slices, budget),
        found.mean,
        found.standard_error,
        mean,
        (spread / LOOP_TRIALS) ** 0.5,
        1e6 * took / TRIALS,
        1e6 * loop_took / LOOP_TRIALS,
    )


def main() -> int:
    rows = [
        *(compare(5, 6, budget) for budget in range(1, 7)),
        *(compare(3, 4, budget) for budget in (1, 4)),
        *(compare(5, 64, budget) for budget in (1, 8, 64)),
        compare(50, 16, 16),
        compare(5, 6, 6, skewed=True),
        compare(5, 64, 8, skewed=True),
    ]
    table = Table(title=f"Deletions until every shard is dead, {TRIALS:,} trials", title_justify="left")
    for name in (
        "m",
        "L",
        "B",
        "pattern",
        "closed form",
        "Monte Carlo",
        "off by",
        "plain loop",
        "us per trial",
        "loop",
        "faster",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.shards),
            str(row.slices),
            str(row.budget),
            row.pattern,
            "-" if row.closed_form is None else f"{row.closed_form:.2f}",
            f"{row.simulated:.2f} ± {row.standard_error:.2f}",
            f"{row.errors_from_closed_form:.1f} SE",
            f"{row.loop:.1f} ± {row.loop_error:.1f}",
            f"{row.microseconds_a_trial:.2f}",
            f"{row.loop_microseconds_a_trial:.0f}",
            f"{row.speedup:.0f} x",
        )
    console = Console(width=130)
    console.print(table)
    console.print(save(RESULTS / "forecast.json", Result(TRIALS, LOOP_TRIALS, tuple(rows))).name)
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
