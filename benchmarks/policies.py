"""Compares systems and policies under the same deletions: depth served, and cost of healing.

    python benchmarks/policies.py

SISA without slices (a shard is one stage), SISA with slices (one sequence), S3T without re-queue, and S3T with eager,
lazy or batched healing. A discrete-event simulation uses the scheduler's own placement functions. Without healing, the
deletions until every shard is dead must be within 3 standard errors of the closed form. With the deletions of a small
real run, the simulation must train as many stages as that run did. Writes benchmarks/results/policies.json and
policies.png. The exit code is 1 if one of these checks fails.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from benchlib.policy_systems import BUDGET, DAYS, GROUPS, HOUR, SHARDS, SLICES, STAGE_SECONDS, SYSTEMS, System, scenario
from benchlib.real_run import Compared, compare
from benchlib.simulate import Course, simulate, sisa, sisa_without_slices
from rich.console import Console
from rich.table import Table

from s3t_ray.plan.forecast import expected_deletions
from s3t_ray.runtime.connect import connected
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
RUNS = 3
REAL_DELETIONS = 4
DEATHS = 200  # runs without healing, to compare with the closed form
DELETIONS_A_DAY = (1.0, 4.0, 12.0, 24.0)


@dataclass(frozen=True)
class Row:
    """Means over RUNS runs of DAYS days."""

    system: str
    deletions_a_day: float
    depth_share: float  # share of full depth, averaged over time and shards
    dead_shard_share: float  # share of shard-time in which a shard serves nothing
    dead_share: float  # share of time in which no shard serves
    hours_a_deletion: float  # worker-group hours spent on healing
    busy_share: float  # of the worker groups' time


@dataclass(frozen=True)
class Death:
    """Deletions until every shard is dead, without healing."""

    system: str
    closed_form: float
    simulated: float
    standard_error: float

    @property
    def errors(self) -> float:
        return abs(self.simulated - self.closed_form) / self.standard_error


@dataclass(frozen=True)
class Result:
    shards: int
    slices: int
    budget: int
    groups: int
    stage_seconds: tuple[float, ...]
    rows: tuple[Row, ...]
    deaths: tuple[Death, ...]
    real: Compared  # eager, a tiny model, on Ray


def play(name: str, rate: float) -> Row:
    courses = [simulate(SYSTEMS[name](scenario(rate, seed))) for seed in range(RUNS)]
    depth = 1 if name == "SISA without slices" else SLICES

    def mean(value: Callable[[Course], float]) -> float:
        return sum(value(course) for course in courses) / RUNS

    return Row(
        name,
        rate,
        mean(lambda course: course.mean_depth / depth),
        mean(lambda course: course.dead_shard_share),
        mean(lambda course: course.dead_share),
        mean(lambda course: course.busy_seconds_per_deletion / HOUR),
        mean(lambda course: course.busy_seconds / (GROUPS * course.until_seconds)),
    )


def death(name: str, system: System, budget: int) -> Death:
    """One deletion per second. No stage is trained, so time does not matter."""
    counts = []
    for seed in range(DEATHS):
        course = simulate(replace(system(scenario(24 * HOUR, 10_000 + seed, until=5000.0)), policy=None))
        counts.append(course.deletions_until_dead or inf)
    mean = sum(counts) / DEATHS
    error = (sum((count - mean) ** 2 for count in counts) / (DEATHS - 1) / DEATHS) ** 0.5
    slices = 1 if name == "SISA without slices" else SLICES
    return Death(name, expected_deletions(SHARDS, slices, budget), mean, error)


def draw(rows: list[Row], path: Path) -> None:
    """Depth served against the cost of healing: one line per system, one point per rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = ("#999999", "#555555", "#E69F00", "#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#D55E00")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8))
    for colour, name in zip(colours, SYSTEMS, strict=True):
        own = [row for row in rows if row.system == name]
        rates = [row.deletions_a_day for row in own]
        left.plot(rates, [row.depth_share for row in own], marker="o", markersize=4, color=colour, label=name)
        right.plot(rates, [row.hours_a_deletion for row in own], marker="o", markersize=4, color=colour)
    left.set_ylabel("share of the depth served, over time")
    right.set_ylabel("worker-group hours per deletion")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_xticks(DELETIONS_A_DAY, [f"{rate:g}" for rate in DELETIONS_A_DAY])
        panel.minorticks_off()
        panel.set_xlabel("deletions per day")
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, ncol=4, loc="lower center")
    figure.suptitle(
        f"{SHARDS} shards x {SLICES} slices, budget {BUDGET}, {GROUPS} worker groups, 10 minutes per slice", fontsize=10
    )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path, dpi=130)


def main() -> int:
    rows = [play(name, rate) for name in SYSTEMS for rate in DELETIONS_A_DAY]
    deaths = [
        death("SISA without slices", sisa_without_slices, 1),
        death("SISA with slices", sisa, 1),
        death("S3T, no re-queue", lambda each: each, BUDGET),
    ]
    console = Console(width=130)
    table = Table(title=f"{DAYS} days, means over {RUNS} runs", title_justify="left")
    names = (
        "system",
        "deletions per day",
        "depth served",
        "dead shards",
        "all dead",
        "group hours per deletion",
        "groups busy",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "system" else "right")
    for row in rows:
        table.add_row(
            row.system,
            f"{row.deletions_a_day:g}",
            f"{row.depth_share:.1%}",
            f"{row.dead_shard_share:.1%}",
            f"{row.dead_share:.1%}",
            f"{row.hours_a_deletion:.2f}",
            f"{row.busy_share:.0%}",
        )
    console.print(table)
    for each in deaths:
        console.print(
            f"{each.system}: dead after {each.simulated:.1f} ± {each.standard_error:.1f} deletions, "
            f"closed form {each.closed_form:.1f} ({each.errors:.1f} SE)",
            highlight=False,
        )
    with tempfile.TemporaryDirectory() as folder, connected(None):
        real = compare(Path(folder), REAL_DELETIONS)
    console.print(real, highlight=False)
    result = Result(SHARDS, SLICES, BUDGET, GROUPS, STAGE_SECONDS, tuple(rows), tuple(deaths), real)
    console.print(save(RESULTS / "policies.json", result).name)
    draw(rows, RESULTS / "policies.png")
    agrees = real.real.stages == real.simulated.stages
    return 0 if agrees and all(each.errors <= 3 for each in deaths) else 1


if __name__ == "__main__":
    sys.exit(main())
