"""How the answers of the commands look: training, evaluation, export.

In: reports of the runtime. Out: rich renderables. Prints nothing and asks the runtime nothing.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import Glyphs, plain_table, status_view
from s3t_ray.run.reports import DepthLoss, Evaluation, Export, TrainReport


def train_view(report: TrainReport, signs: Glyphs) -> RenderableType:
    reused = f", {units.plural(report.reused, 'stage')} reused" if report.reused else ""
    line = (
        f"{units.plural(report.trained, 'stage')} trained{reused}, {units.large(report.tokens, 'tokens')} "
        f"in {units.duration(report.seconds)}"
    )
    return Group(status_view(report.status, signs), "", Text(line, style="bold"))


def evaluation_view(evaluation: Evaluation) -> RenderableType:
    head = Text(
        f"{units.plural(evaluation.records, 'held-out record')}, {units.count(evaluation.tokens)} predictions; "
        f"live depth of each shard: {', '.join(str(depth) for depth in evaluation.depths)}"
    )
    metrics = evaluation.live.metrics
    table = plain_table("depth", "loss" if metrics else "loss (nats per token)", "standard error", *metrics)
    for column in table.columns:
        column.justify = "right"
    for row in evaluation.by_depth:
        table.add_row("base model" if row.depth == 0 else str(row.depth), *_loss_cells(row))
    table.add_row("live", *_loss_cells(evaluation.live), style="bold")
    return Group(head, "", table)


def _loss_cells(row: DepthLoss) -> tuple[str, ...]:
    metrics = ("-" if value is None else f"{value:.1%}" for value in row.metrics.values())
    return f"{row.loss:.4f}", f"{row.standard_error:.4f}", *metrics


def export_view(export: Export) -> RenderableType:
    what = "all shards merged" if export.shard is None else f"shard {export.shard}"
    return Text(
        f"{what} at depth {export.depth} ({units.plural(len(export.stages), 'stage')}) "
        f"written to {units.printable(export.folder)}\nadapter sha256 {export.adapter_sha256}\n"
        "a deletion that affects it erases this copy; you must erase any further copies"
    )
