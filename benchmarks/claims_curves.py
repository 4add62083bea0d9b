"""Figures of the method's claims that need no training, one per command: what a budget gains and what it costs.

    python benchmarks/claims_curves.py deletion-rate
    python benchmarks/claims_curves.py gap
    python benchmarks/claims_curves.py budget-cost
    python benchmarks/claims_curves.py full-budget
    python benchmarks/claims_curves.py deletion-cost [--price-per-hour 2.50]

`deletion-rate`: deletions until every shard is dead, closed form and simulation. `gap`: the paper's theorem and
simulated deletions on real orders. `budget-cost`: FLOPs and bytes of a Llama-2-13B run. `full-budget`: all L! orders,
and what sharing prefixes saves. `deletion-cost`: worker-group time and money per deletion, by policy. Writes
benchmarks/results/claims/*.json and docs/claims/*.svg.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from benchlib.deletion_streams import Order, gap, hit_masks, kept_at_least, mean_depths, uniform_streams
from benchlib.experiment_file import line, write_experiment
from benchlib.full_budget import full_budget
from benchlib.policy_systems import HOUR, STAGE_SECONDS, SYSTEMS, scenario
from benchlib.simulate import simulate

from s3t_ray.config.model_shape import ModelShape
from s3t_ray.config.schema import Config
from s3t_ray.plan.cost import healing_cost, plan_cost, storage_bytes
from s3t_ray.plan.forecast import expected_deletions, simulate_deletions
from s3t_ray.plan.orders import orders
from s3t_ray.plan.work import count_stages, describe_work
from s3t_ray.report.page_model import Cell, ChartSeries, ReportChart, ReportSection, ReportTable

TRIALS = 4_000
SHAPES = ((5, 4), (5, 6), (3, 4))
"""(shards, slices)."""
RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("figure", choices=("deletion-rate", "gap", "budget-cost", "full-budget", "deletion-cost"))
    parser.add_argument("--price-per-hour", type=float, default=2.5, help="price of one worker group, in any currency")
    arguments = parser.parse_args()
    began = time.perf_counter()
    if arguments.figure == "deletion-rate":
        title, section = "Deletions that a run survives", deletion_rate()
    elif arguments.figure == "gap":
        title, section = "What several orders keep beyond one order", gap_of_theorem()
    elif arguments.figure == "budget-cost":
        title, section = "What a budget costs", budget_cost()
    elif arguments.figure == "full-budget":
        title, section = "All orders", full_budget()
    else:
        title, section = "What a deletion costs", deletion_cost(arguments.price_per_hour)
    path = write_experiment(arguments.figure, title, (section,), time.perf_counter() - began)
    print(path.name)
    for table in section.tables:
        for row in (table.columns, *table.rows):
            print("  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))


def _config(shards: int, slices: int, budget: int, order: str = "cyclic", **changes: object) -> Config:
    return Config.model_validate(
        {
            "name": "claims",
            "shards": shards,
            "slices": slices,
            "budget": budget,
            "order": {"kind": order},
            "model": {"path": "none"},
            "data": {"path": "none"},
            "lora": {"layers_per_group": 1},
            "storage": {"uri": "none"},
            **changes,
        }
    )


def _orders(config: Config) -> list[tuple[Order, ...]]:
    return [orders(config, shard) for shard in range(config.shards)]


def deletion_rate() -> ReportSection:
    """m L H(m min(B, L)) against a simulation of individual deletions."""
    series: list[ChartSeries] = []
    rows: list[tuple[Cell, ...]] = []
    for shards, slices in SHAPES:
        budgets = list(range(1, slices + 3))
        closed = [expected_deletions(shards, slices, budget) for budget in budgets]
        found = [simulate_deletions(_orders(_config(shards, slices, budget)), TRIALS, budget) for budget in budgets]
        means = [each.mean for each in found]
        errors = [1.96 * each.standard_error for each in found]
        bounds = (
            [m - e for m, e in zip(means, errors, strict=True)],
            [m + e for m, e in zip(means, errors, strict=True)],
        )
        series += [
            line(f"{shards} x {slices}, closed form", budgets, closed),
            line(f"{shards} x {slices}, simulated", budgets, means, *bounds).model_copy(update={"style": "points"}),
        ]
        rows += [
            (shards, slices, budget, exact, estimate.mean, estimate.standard_error, exact / closed[0])
            for budget, exact, estimate in zip(budgets, closed, found, strict=True)
        ]
    chart = ReportChart(
        stem="deletion-rate",
        title="Uniform deletions until every shard is dead",
        x_label="budget (sequences per shard)",
        y_label="deletions",
        series=tuple(series),
        from_zero=True,
        caption=f"Shards x slices; cyclic orders; {TRIALS:,} trials, bars: 95%. Budget 1 is SISA with slices. "
        "A budget above the number of slices adds no first slice, so it does not help here.",
    )
    table = ReportTable(
        stem="deletion-rate-table",
        title="Deletions until dead",
        columns=("shards", "slices", "budget", "closed form", "simulated", "standard error", "over budget 1"),
        rows=tuple(rows),
    )
    return ReportSection(title="", charts=(chart,), tables=(table,))


def gap_of_theorem() -> ReportSection:
    """Probability that a shard keeps k slices after r deletions in it: several orders minus one order."""
    slices, depth, trials = 6, 2, 20_000
    deletions = list(range(1, 13))
    streams = uniform_streams(trials, max(deletions), 1, slices, 0)
    masks = hit_masks(streams, 1)
    series: list[ChartSeries] = []
    rows: list[tuple[Cell, ...]] = []
    for sequences in (2, 3, 6):
        theory = [gap(depth, slices, count, sequences) for count in deletions]
        series.append(line(f"zeta (1 - zeta^B'), {sequences} sequences", deletions, theory))
        for name in ("random", "cyclic", "chains"):
            found = _measured_gap(masks, slices, depth, sequences, name, deletions)
            if name != "chains" or sequences == slices:
                measured = line(f"{name}, {sequences} sequences", deletions, found)
                series.append(measured.model_copy(update={"style": "points"}))
            rows += [
                (sequences, name, count, exact, kept, kept - exact)
                for count, exact, kept in zip(deletions, theory, found, strict=True)
                if count in (1, 2, 3, 4, 6, 8, 12)
            ]
    chart = ReportChart(
        stem="gap",
        title=f"Probability of keeping {depth} of {slices} slices: several sequences minus one",
        x_label="deletions in the shard",
        y_label="gain in probability",
        series=tuple(series),
        from_zero=True,
        caption="The theorem assumes independent sequences. In fact a shard's sequences see the same deletions, and "
        f"designed orders (cyclic, chains) spread over the slices, so measurements differ from it. "
        f"{trials:,} streams.",
    )
    table = ReportTable(
        stem="gap-table",
        title="The theorem and measurements",
        columns=("sequences", "orders", "deletions", "theorem", "measured", "difference"),
        rows=tuple(rows),
    )
    return ReportSection(title="", charts=(chart,), tables=(table,))


def _measured_gap(
    masks: np.ndarray, slices: int, depth: int, sequences: int, name: str, deletions: Sequence[int]
) -> list[float]:
    seeds = 20 if name == "random" else 1
    kept = np.zeros(len(deletions))
    for seed in range(seeds):
        own = _orders(_config(1, slices, sequences, name, seed=seed))
        kept += (mean_depths(masks, own)[:, deletions] >= depth).mean(0) / seeds
    return [float(each) - kept_at_least(depth, slices, count) for each, count in zip(kept, deletions, strict=True)]


LLAMA_13B = ModelShape(
    layers=40, hidden=5120, intermediate=13824, heads=40, kv_heads=40, head_size=128, vocabulary=32000
)
ALPACA_RECORDS, ALPACA_TOKENS, ALPACA_LABELLED = 52_002, 182.0, 0.83
"""Tokens per record, and the share of them with a loss."""


def budget_cost() -> ReportSection:
    """A complete training, one healing, and bytes, relative to one sequence."""
    slices, found = 5, []
    for order, budget in [("cyclic", b) for b in range(1, 6)] + [("chains", b) for b in (6, 8, 10)]:
        config = _config(5, slices, budget, order, lora={"layers_per_group": 8, "rank": 32, "alpha": 64})
        work = describe_work(config, ALPACA_RECORDS, ALPACA_TOKENS, ALPACA_LABELLED, LLAMA_13B)
        own = _orders(config)
        cost, stored, healing = plan_cost(work, own), storage_bytes(work, own), healing_cost(work, own)
        found.append((budget, order, count_stages(own).total(), cost, stored, healing.flops))
    first = found[0]
    budgets = [budget for budget, *_ in found]
    series = (
        line("training FLOPs", budgets, [cost.flops / first[3].flops for *_, cost, _, _ in found]),
        line(
            "training FLOPs, prefixes not shared",
            budgets,
            [c.unshared.flops / first[3].unshared.flops for *_, c, _, _ in found],
        ),
        line("adapter bytes", budgets, [stored.adapters / first[4].adapters for *_, stored, _ in found]),
        line("all stored bytes", budgets, [stored.total / first[4].total for *_, stored, _ in found]),
        line(
            "deletions until dead",
            budgets,
            [expected_deletions(5, slices, b) / expected_deletions(5, slices, 1) for b in budgets],
        ),
    )
    chart = ReportChart(
        stem="budget-cost",
        title="Llama-2-13B on Alpaca, 5 shards of 5 slices: cost and gain over budget 1",
        x_label="budget (sequences per shard)",
        y_label="times those of budget 1",
        series=series,
        from_zero=True,
        caption="Computed by `s3t plan`'s functions; cyclic orders up to 5, chains above. All sequences use "
        "the same stored hidden states, so storage grows less than training.",
    )
    table = ReportTable(
        stem="budget-cost-table",
        title="What a budget costs",
        columns=(
            "budget",
            "orders",
            "stages",
            "training EFLOP",
            "EFLOP to heal one deletion",
            "adapters GB",
            "all stored GB",
        ),
        rows=tuple(
            (budget, order, float(stages), cost.flops / 1e18, healing / 1e18, stored.adapters / 1e9, stored.total / 1e9)
            for budget, order, stages, cost, stored, healing in found
        ),
    )
    return ReportSection(title="", charts=(chart,), tables=(table,))


def deletion_cost(price_per_hour: float) -> ReportSection:
    """Worker-group time, money and the depth served meanwhile, by policy and deletion rate."""
    rates = (1.0, 4.0, 12.0, 24.0)
    until = 20 * 24 * HOUR
    series: list[ChartSeries] = []
    rows: list[tuple[Cell, ...]] = []
    for name, system in SYSTEMS.items():
        costs, errors = [], []
        for rate in rates:
            courses = [simulate(system(scenario(rate, seed, until))) for seed in range(RUNS)]
            seconds = [course.busy_seconds_per_deletion for course in courses]
            costs.append(float(np.mean(seconds)) / 60)
            errors.append(1.96 * float(np.std(seconds, ddof=1)) / RUNS**0.5 / 60)
            depth = 1 if name == "SISA without slices" else len(STAGE_SECONDS)
            served = float(np.mean([course.mean_depth for course in courses])) / depth
            dead = float(np.mean([course.dead_shard_share for course in courses]))
            rows.append((name, rate, 60 * costs[-1], costs[-1], costs[-1] / 60 * price_per_hour, served, dead))
        low, high = ([c + sign * e for c, e in zip(costs, errors, strict=True)] for sign in (-1, 1))
        if any(costs):
            series.append(line(name, rates, costs, low, high))
    chart = ReportChart(
        stem="deletion-cost",
        title="Training that one deletion causes",
        x_label="deletions per day",
        y_label="minutes of a worker group",
        x_kind="log",
        series=tuple(series),
        from_zero=True,
        caption=f"5 shards of 6 slices, 10 minutes per slice and stage, 4 worker groups, 20 days, {RUNS} runs. "
        "Bars: 95%. Simulated with the scheduler's own functions. Without re-queue a deletion causes no training.",
    )
    columns = ("policy", "deletions per day", "group seconds", "group minutes", "price", "depth served", "dead shards")
    table = ReportTable(
        stem="deletion-cost-table",
        title="Cost of a deletion by policy",
        columns=columns,
        rows=tuple(rows),
        caption=f"Price at {price_per_hour:g} per hour of a worker group. Depth served: share of full depth, over time "
        "and shards; dead shards: share of shard-time.",
    )
    return ReportSection(title="", charts=(chart,), tables=(table,))


if __name__ == "__main__":
    main()
