"""How the answers of the commands look: receipts, impact, evaluation, export, verification.

In: reports of the runtime. Out: rich renderables. Prints nothing and asks the runtime nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from s3t_ray.cli import words
from s3t_ray.cli.show_status import Glyphs, plain_table, state_text, status_view
from s3t_ray.runtime.reports import (
    DeletionReceipt,
    DeletionStatus,
    DepthLoss,
    Evaluation,
    Export,
    Impact,
    ShardImpact,
    TrainReport,
    Verification,
)


def train_view(report: TrainReport, signs: Glyphs) -> RenderableType:
    reused = f", {words.plural(report.reused, 'stage')} reused" if report.reused else ""
    line = (
        f"{words.plural(report.trained, 'stage')} trained{reused}, {words.large(report.tokens, 'tokens')} "
        f"in {words.duration(report.seconds)}"
    )
    return Group(status_view(report.status, signs), "", Text(line, style="bold"))


def impact_view(impact: Impact) -> RenderableType:
    parts: list[RenderableType] = [
        Text(f"would delete {words.plural(impact.records, 'record')}{_besides(impact)}; nothing was changed", "bold")
    ]
    return Group(*parts, *_named_unknown(impact.unknown_ids, impact.unknown_subjects), *_shards(impact.shards))


def receipt_view(receipt: DeletionReceipt) -> RenderableType:
    repeat = " (this request had been accepted before: the same receipt)" if receipt.repeated else ""
    head = Text.assemble(
        (f"accepted {receipt.request_id}", "bold green"),
        f" at {receipt.accepted_at}{repeat}\n",
        f"{words.plural(receipt.records, 'record')} deleted{_already(receipt.already_deleted)}; "
        f"{words.plural(len(receipt.stages_pruned), 'stage')} taken out of service",
    )
    return Group(head, *_named_unknown(receipt.unknown_ids, receipt.unknown_subjects), *_shards(receipt.shards))


def settled_view(deletion: DeletionStatus, signs: Glyphs) -> Text:
    """One line on where a deletion stands after waiting for it."""
    time = "after" if deletion.state == "restored" else "since"
    return state_text(deletion.state, signs).append(f" {time} {words.duration(deletion.age_seconds)}", style="not dim")


def _besides(impact: Impact) -> str:
    held_out = f" ({words.count(impact.held_out)} of them held out)" if impact.held_out else ""
    return held_out + _already(impact.already_deleted)


def _already(records: int) -> str:
    return f", {words.count(records)} deleted before" if records else ""


def _named_unknown(ids: Sequence[str], subjects: Sequence[str]) -> list[Text]:
    lines = []
    for noun, names in (("id", ids), ("subject", subjects)):
        if names:
            lines.append(Text(f"unknown {words.plural(len(names), noun)}: {words.listed(names)}", style="yellow"))
    return lines


def _shards(shards: Sequence[ShardImpact]) -> list[RenderableType]:
    """A row a shard: what goes out of service, the depths that are left, and what healing costs."""
    if not shards:
        return []
    table = plain_table("shard", "slices", "records", "stages lost", "depth", "stages to train", "records to train")
    for column in (0, 2, 3, 5, 6):
        table.columns[column].justify = "right"
    for shard in shards:
        before, after = max(shard.depths_before, default=0), max(shard.depths_after, default=0)
        table.add_row(
            str(shard.shard),
            ", ".join(str(index) for index in shard.slices),
            words.count(shard.records),
            words.count(shard.stages),
            Text(f"{before} to {after or 'dead'}", style="red" if before and not after else ""),
            words.count(shard.retrain_stages),
            words.count(shard.retrain_records),
        )
    return ["", table]


def evaluation_view(evaluation: Evaluation) -> RenderableType:
    head = Text(
        f"{words.plural(evaluation.records, 'held-out record')}, {words.count(evaluation.tokens)} labelled tokens; "
        f"live depth of each shard: {', '.join(str(depth) for depth in evaluation.depths)}"
    )
    table = plain_table("depth", "loss (nats a token)", "standard error", "accuracy")
    for column in table.columns:
        column.justify = "right"
    for row in evaluation.by_depth:
        table.add_row("base model" if row.depth == 0 else str(row.depth), *_loss_cells(row))
    table.add_row("live", *_loss_cells(evaluation.live), style="bold")
    return Group(head, "", table)


def _loss_cells(row: DepthLoss) -> tuple[str, str, str]:
    return f"{row.loss:.4f}", f"{row.standard_error:.4f}", "" if row.accuracy is None else f"{row.accuracy:.1%}"


def export_view(export: Export) -> RenderableType:
    return Text(
        f"shard {export.shard} at depth {export.depth} ({words.plural(len(export.stages), 'stage')}) "
        f"written to {words.printable(export.folder)}\nadapter sha256 {export.adapter_sha256}\n"
        "a deletion that touches it erases this copy; copies of the copy are yours to erase"
    )


def verification_view(verification: Verification, signs: Glyphs) -> RenderableType:
    parts: list[RenderableType] = [
        Text(
            f"{words.plural(verification.records, 'record')} and {words.plural(verification.stages, 'stage')} checked, "
            f"{words.plural(len(verification.replayed), 'stage')} replayed"
        )
    ]
    if verification.replayed:
        table = plain_table("replayed", "shard", "slices", "result", "largest difference")
        table.columns[1].justify = "right"
        for stage in verification.replayed:
            if stage.equal:
                result = Text("equal to the bit", style="green")
            elif stage.same_machine:
                result = Text("differs", style="bold red")
            else:
                result = Text("another machine: a distance, no proof", style="yellow")
            slices = words.order(stage.slices, signs.arrow)
            name = words.short_id(stage.stage_id)
            table.add_row(name, str(stage.shard), slices, result, f"{stage.largest_difference:.3g}")
        parts += ["", table]
    parts += [Text(f"problem: {words.printable(problem)}", style="red") for problem in verification.problems]
    parts.append(Text("verified", style="bold green") if verification.ok else Text("not verified", style="bold red"))
    return Group(*parts)
