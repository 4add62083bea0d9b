"""Shows a sweep's outcomes as a table and a chart.

In: outcomes, the requirements, the Pareto front. Out: a rich table; a PNG of cost against quality. Never measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from s3t_ray.sweep.choose import Need
from s3t_ray.sweep.objectives import Outcome

FRONT_COLOUR, OTHER_COLOUR = "#0072B2", "#999999"


def table(outcomes: Sequence[Outcome], front: Sequence[Outcome], need: Need) -> Table:
    """One row per trial, with a mark for those on the Pareto front."""
    found = Table(title="Trials (* Pareto-optimal)", title_justify="left")
    trained = any(outcome.measured for outcome in outcomes)
    found.add_column("")
    found.add_column("trial", no_wrap=True)
    names = ["stages", "until dead", f"depth after {need.deletions}", "GPU hours", "per healing", "GB"]
    names += ["trained", "shared", "loss by depth", f"loss after {need.deletions}"] if trained else []
    for name in names:
        found.add_column(name, justify="right")
    for outcome in outcomes:
        forecast, measured = outcome.forecast, outcome.measured
        row = [
            "*" if outcome in front else "",
            outcome.label,
            f"{forecast.stages:,}",
            f"{forecast.deletions_until_dead:.1f}",
            f"{outcome.depth_share_after(need.deletions):.0%}",
            f"{need.gpu_hours(forecast.training_flops):.3g}",
            f"{need.gpu_hours(forecast.healing_flops):.3g}",
            f"{forecast.storage_bytes / 1e9:.3g}",
        ]
        if measured is not None:
            after = outcome.loss_after(need.deletions)
            row += [f"{measured.trained_stages:,}", f"{measured.reused_stages:,}"]
            row += [" ".join(f"{loss:.3f}" for loss in measured.loss_by_depth), "" if after is None else f"{after:.3f}"]
        found.add_row(*row)
    return found


def draw(outcomes: Sequence[Outcome], front: Sequence[Outcome], need: Need, chosen: Outcome | None, path: Path) -> Path:
    """Draw quality after the deletions against training cost. The area of a point shows its storage."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = {id(outcome): outcome.loss_after(need.deletions) for outcome in outcomes}
    by_loss = all(loss is not None for loss in losses.values())

    def quality(outcome: Outcome) -> float:
        loss = losses[id(outcome)]
        return loss if by_loss and loss is not None else outcome.depth_share_after(need.deletions)

    figure = Figure(figsize=(9, 5.2))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    largest = max(outcome.forecast.storage_bytes for outcome in outcomes) or 1
    for outcome in outcomes:
        axes.scatter(
            need.gpu_hours(outcome.forecast.training_flops),
            quality(outcome),
            s=30 + 300 * outcome.forecast.storage_bytes / largest,
            color=FRONT_COLOUR if outcome in front else OTHER_COLOUR,
            alpha=0.75,
            linewidths=2.5 if outcome is chosen else 0,
            edgecolors="#D55E00",
        )
        if outcome in front:
            axes.annotate(
                outcome.label,
                (need.gpu_hours(outcome.forecast.training_flops), quality(outcome)),
                xytext=(11, 6),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel(f"GPU hours of the first training, at {need.tflops:g} TFLOP/s")
    axes.set_ylabel(
        f"held-out loss after {need.deletions} deletions (lower is better)"
        if by_loss
        else f"share of depth remaining after {need.deletions} deletions (higher is better)"
    )
    axes.set_title(
        "Blue: Pareto-optimal in cost, storage, deletion rate and quality. Area: storage. Circled: recommended.",
        fontsize=9,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    return path
