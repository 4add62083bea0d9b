"""Compares orders of slices: depth kept after deletions, deletions survived, and training cost.

    python benchmarks/orders.py

Covers each kind of order and each budget, for uniform and skewed deletions (Zipf: a shard's slices are hit in
proportion to 1, 1/2, 1/3, ..., in a different order for each shard), with and without giving `greedy` and `bms` these
probabilities. Depths are exact (all subsets of slices); deletions until every shard is dead are simulated. Writes
benchmarks/results/orders.json and orders.png. Nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, factorial
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from s3t_ray.config.schema import Config
from s3t_ray.plan.forecast import Estimate, mean_depth_after, most_depth_after, simulate_deletions
from s3t_ray.plan.orders import orders
from s3t_ray.plan.work import count_stages
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
KINDS = ("cyclic", "chains", "greedy", "bms", "random")
DELETIONS = (1, 2, 3, 4)
SHARDS = 5
TRIALS = 20_000
SHOWN_SLICES = 6
TICKS = (1, 2, 3, 6, 12, 20)


@dataclass(frozen=True)
class Row:
    """One kind of order at one budget and one pattern of deletions."""

    slices: int
    pattern: str  # of the deletions
    kind: str
    told: bool  # whether the orders were chosen for this pattern
    budget: int
    sequences: float  # per shard; fewer than the budget if no further order adds depth
    depth_after: tuple[float, ...]  # mean depth of a shard after DELETIONS in it
    mean_depth: float  # averaged over 1..L deletions
    most: float  # the same, the most that any orders could keep
    until_dead: Estimate  # deletions until all of SHARDS shards are dead
    stages: float  # per shard
    slice_passes: float  # training cost per shard: slices learned, summed over stages
    cost: float  # relative to one sequence


@dataclass(frozen=True)
class Result:
    rows: tuple[Row, ...]


Chances = tuple[tuple[float, ...], ...]
"""Probability by shard and slice, given that a deletion hits the shard."""


def zipf(slices: int) -> Chances:
    """1, 1/2, 1/3, ... divided by their sum, shuffled per shard."""
    total = sum(1 / rank for rank in range(1, slices + 1))
    ranks = [Random(shard).sample(range(1, slices + 1), slices) for shard in range(SHARDS)]
    return tuple(tuple(1 / rank / total for rank in row) for row in ranks)


def even(slices: int) -> Chances:
    return ((1 / slices,) * slices,) * SHARDS


def compare(slices: int, budgets: tuple[int, ...]) -> list[Row]:
    uniform, skewed = even(slices), zipf(slices)
    found = []
    for budget in budgets:
        for kind in KINDS:
            if kind == "chains" and budget > comb(slices, slices // 2):
                continue
            plain = _orders(kind, slices, budget, ())
            found.append(_row(kind, False, plain, "uniform", uniform, budget))
            found.append(_row(kind, False, plain, "zipf", skewed, budget))
            if kind in ("greedy", "bms"):
                told = _orders(kind, slices, budget, skewed)
                found.append(_row(kind, True, told, "zipf", skewed, budget))
                # Also the cost of a wrong guess.
                found.append(_row(kind, True, told, "uniform", uniform, budget))
    return found


def _orders(kind: str, slices: int, budget: int, probabilities: Chances) -> list[tuple[tuple[int, ...], ...]]:
    """The orders of every shard."""
    config = Config.model_validate(
        {
            "name": "orders",
            "shards": SHARDS,
            "slices": slices,
            "budget": budget,
            "order": {"kind": kind, "probabilities": probabilities},
            "model": {"path": "none"},
            "data": {"path": "none"},
            "lora": {"layers_per_group": 1},
            "storage": {"uri": "none"},
        }
    )
    return [orders(config, shard) for shard in range(SHARDS)]


def most_depth(chances: Chances, deletions: int) -> float:
    """Mean over shards of the greatest depth that any orders can keep."""
    return sum(most_depth_after(len(each), deletions, each) for each in chances) / len(chances)


def _row(
    kind: str, told: bool, by_shard: list[tuple[tuple[int, ...], ...]], pattern: str, chances: Chances, budget: int
) -> Row:
    slices = len(chances[0])

    def depth(deletions: int) -> float:
        pairs = zip(by_shard, chances, strict=True)
        return sum(mean_depth_after(each, deletions, own).mean for each, own in pairs) / SHARDS

    depths = [depth(deletions) for deletions in range(1, slices + 1)]
    most = [most_depth(chances, deletions) for deletions in range(1, slices + 1)]
    spread = [[chance / SHARDS for chance in each] for each in chances]
    stages = count_stages(by_shard)
    passes = sum(depth * number for depth, number in stages.items()) / SHARDS
    return Row(
        slices=slices,
        pattern=pattern,
        kind=kind,
        told=told,
        budget=budget,
        sequences=sum(len(each) for each in by_shard) / SHARDS,
        depth_after=tuple(depth(deletions) for deletions in DELETIONS),
        mean_depth=sum(depths) / slices,
        most=sum(most) / slices,
        until_dead=simulate_deletions(by_shard, TRIALS, seed=1, probabilities=spread),
        stages=stages.total() / SHARDS,
        slice_passes=passes,
        cost=passes / (slices * (slices + 1) / 2),
    )


def show(rows: list[Row], slices: int, pattern: str, console: Console) -> None:
    table = Table(title=f"L = {slices}, {pattern} deletions", title_justify="left")
    for name in ("B", "order", "sequences", *(f"depth after {n}" for n in DELETIONS), "of most", "until dead", "cost"):
        table.add_column(name, justify="left" if name == "order" else "right")
    chosen = [row for row in rows if (row.slices, row.pattern) == (slices, pattern)]
    for row in sorted(chosen, key=lambda row: (row.budget, -row.mean_depth)):
        guessed = " told zipf" if row.told else ""
        table.add_row(
            str(row.budget),
            row.kind + guessed,
            f"{row.sequences:g}",
            *(f"{depth:.2f}" for depth in row.depth_after),
            f"{row.mean_depth / row.most:.1%}",
            f"{row.until_dead.mean:.1f} ± {row.until_dead.standard_error:.1f}",
            f"{row.cost:.2f}",
        )
    chances = zipf(slices) if pattern == "zipf" else even(slices)
    most = (f"{most_depth(chances, deletions):.2f}" for deletions in DELETIONS)
    table.add_row("", "most possible", "", *most, "100%", "", "", style="bold")
    console.print(table)


def draw(rows: list[Row], slices: int, path: Path) -> None:
    """Depth kept against training cost: one line per kind, one point per budget."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(zip(KINDS, ("#0072B2", "#009E73", "#D55E00", "#E69F00", "#999999"), strict=True))
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.4), sharey=True)
    for panel, pattern in zip(panels, ("uniform", "zipf"), strict=True):
        chosen = [row for row in rows if (row.slices, row.pattern) == (slices, pattern)]
        for kind in KINDS:
            for told in (False, True):
                line = sorted((row.cost, row.mean_depth) for row in chosen if (row.kind, row.told) == (kind, told))
                if not line or (told and pattern == "uniform"):
                    continue
                panel.plot(
                    *zip(*line, strict=True),
                    marker="o",
                    markersize=4,
                    color=colours[kind],
                    linestyle="--" if told else "-",
                    label=f"{kind}, given the pattern" if told else kind,
                )
        panel.axhline(chosen[0].most, color="#333333", linewidth=1)
        panel.text(1.0, chosen[0].most, "most possible ", ha="left", va="bottom", fontsize=9)
        panel.set_xscale("log")
        panel.set_xticks(TICKS, [str(tick) for tick in TICKS])
        panel.minorticks_off()
        panel.set_xlabel("training cost (relative to one sequence)")
        panel.set_title(f"{pattern} deletions", loc="left", fontsize=11)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"depth kept, mean over 1 to {slices} deletions")
    panels[1].legend(frameon=False, fontsize=9)
    figure.suptitle(f"Orders of {slices} slices", x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    console = Console(width=140)
    rows = []
    for slices, budgets in ((4, (1, 2, 4, 6, 12)), (6, (1, 2, 3, 6, 12, 20)), (8, (1, 2, 4, 8, 16, 32, 70))):
        rows += compare(slices, tuple(budget for budget in budgets if budget <= factorial(slices)))
    for pattern in ("uniform", "zipf"):
        show(rows, SHOWN_SLICES, pattern, console)
    save(RESULTS / "orders.json", Result(tuple(rows)))
    draw(rows, SHOWN_SLICES, RESULTS / "orders.png")
    console.print(
        f"{len(rows)} rows, of 4, 6 and 8 slices, in benchmarks/results/orders.json; the picture in orders.png"
    )


if __name__ == "__main__":
    main()
