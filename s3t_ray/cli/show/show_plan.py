"""How a plan looks: what is trained, what it costs, how many deletions it survives.

In: `PlanReport`. Out: rich renderables. Prints nothing, and computes only displayed sums.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3t_ray.cli.plan_report import BalanceReport, GpuReport, PlanData, PlanReport
from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import Glyphs, plain_table

ORDERS_SHOWN = 6


def plan_view(report: PlanReport, signs: Glyphs) -> RenderableType:
    """The complete output of `s3t plan`."""
    head = Text.assemble(
        (units.printable(report.name), "bold"),
        f"  {units.plural(report.shards, 'shard')} of {units.plural(report.slices, 'slice')}, "
        f"budget {report.budget}, {report.order} orders",
    )
    hidden = (_boundaries(report), "") if report.hidden_states.boundaries else ()
    return Group(head, "", _facts(report, signs), "", *hidden, _retention(report))


def _facts(report: PlanReport, signs: Glyphs) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    healing, memory, storage, forecast = report.healing, report.rank_memory, report.storage, report.forecast
    sized = "" if report.data.balance is None else " for the slices as they fall"
    table.add_row("data", _data(report.data))
    if report.data.balance is not None:
        table.add_row("partition", _partition(report.data.balance))
    for note in report.data.notes:
        table.add_row("note", units.printable(note))
    table.add_row("sequences", _sequences(report, signs))
    table.add_row("stages", _stages(report))
    table.add_row("layers", _layer_groups(report))
    table.add_row("tokens", f"{units.large(report.training_tokens)} over all stages and epochs")
    table.add_row("compute", _compute(report))
    table.add_row(
        "healing",
        f"one deletion, healed at once: {healing.stages:.1f} stages, {units.large(healing.tokens)} tokens, "
        f"{units.flops(healing.flops)} on average",
    )
    table.add_row(
        "memory",
        f"{units.size(memory.total_bytes)} per rank on a GPU: base {units.size(memory.base_bytes)}, "
        f"adapters and optimizer {units.size(memory.adapters_bytes)}, activations "
        f"{units.size(memory.activations_bytes)}, logits {units.size(memory.logits_bytes)}, "
        f"reserve {units.size(memory.reserve_bytes)}",
    )
    table.add_row(
        "storage",
        f"{units.size(storage.total_bytes)}: adapters {units.size(storage.adapters_bytes)}, hidden states "
        f"{units.size(storage.hidden_states_bytes)}, records about {units.size(storage.rows_bytes)}",
    )
    table.add_row(
        "forecast",
        f"{forecast.closed_form_deletions:,.1f} deletions until every shard is dead, without healing and with slices "
        f"of equal size (closed form); {forecast.one_sequence_deletions:,.1f} with one sequence per shard\n"
        f"{forecast.simulated_deletions:,.1f} simulated{sized}, standard error {forecast.simulated_standard_error:.1f}",
    )
    if report.gpus is not None:
        table.add_row("GPUs", _gpus(report.gpus))
    return table


def _gpus(report: GpuReport) -> str:
    """Whether the config fits, and what to set."""
    rate = "" if report.bfloat16_teraflops is None else f", {report.bfloat16_teraflops:,.0f} TFLOP/s bfloat16 peak"
    lines = [f"{report.gpus}, {units.size(report.memory_bytes)} each{rate}"]
    if report.fits:
        lines.append(f"the config fits: {units.size(report.rank_bytes)} per rank")
    else:
        lines.append(f"the config does not run there unchanged: {'; '.join(report.obstacles)}")
    if report.proposed is None or report.proposed_rank_bytes is None:
        lines.append("no setting fits: use more or larger GPUs, or a smaller base")
    elif report.proposed:
        lines.append(
            f"proposed: {units.plural(report.proposed_groups or 0, 'worker group')}, "
            f"{units.size(report.proposed_rank_bytes)} per rank, with"
        )
        lines += [f"  --set {setting}" for setting in report.proposed]
        lines.append("all except workers.* is part of the recipe: set it before the first training")
    else:
        lines.append(f"proposed: no change, {units.plural(report.proposed_groups or 0, 'worker group')}")
    if report.least_seconds is not None:
        lines.append(f"the whole training takes at least {units.duration(report.least_seconds)}, at that peak rate")
    return "\n".join(lines)


def _data(data: PlanData) -> str:
    held_out = f", {units.count(data.held_out_records)} held out" if data.held_out_records else ""
    set_aside = f", {units.count(data.set_aside_rows)} malformed rows set aside" if data.set_aside_rows else ""
    origins = {
        "option": "as given",
        "assumed": "assumed, the upper bound",
        "tokenizer": f"counted on {units.plural(data.sampled_records, 'record')}",
        "characters": f"an estimate: 4 characters per token, on {units.plural(data.sampled_records, 'record')}",
    }
    tokens, share = f"{data.tokens_per_record:,.0f} tokens per record", f"{data.labelled_share:.0%} of them with a loss"
    if data.tokens_from == data.labelled_share_from:
        described = f"{tokens}, {share} ({origins[data.tokens_from]})"
    else:
        described = f"{tokens} ({origins[data.tokens_from]}), {share} ({origins[data.labelled_share_from]})"
    return f"{units.count(data.records)} records{held_out}{set_aside}\n{described}"


def _partition(found: BalanceReport) -> str:
    empty = f", {units.plural(found.empty_slices, 'empty slice')}" if found.empty_slices else ""
    return (
        f"shards of {units.count(found.smallest_shard)} to {units.count(found.largest_shard)} records, "
        f"slices of {units.count(found.smallest_slice)} to {units.count(found.largest_slice)}{empty}"
    )


def _sequences(report: PlanReport, signs: Glyphs) -> str:
    shown = "  ".join(units.order(order, signs.arrow) for order in report.orders[:ORDERS_SHOWN])
    hidden = len(report.orders) - ORDERS_SHOWN
    return f"{units.count(report.sequences)}, in shard 0: {shown}" + (f"  and {hidden:,} more" if hidden > 0 else "")


def _stages(report: PlanReport) -> str:
    if report.stages == report.stages_unshared:
        return f"{units.count(report.stages)}; no two sequences have the same prefix, so none is shared"
    saved = 1 - report.compute.stages_flops / report.compute.unshared_flops
    return (
        f"{units.count(report.stages)} instead of {units.count(report.stages_unshared)}, because sequences share "
        f"prefixes: {saved:.0%} less compute"
    )


def _compute(report: PlanReport) -> str:
    compute = report.compute
    filling = f", {units.flops(compute.hidden_states_flops)} of it to store hidden states"
    return (
        f"at least {units.flops(compute.total_flops)}{filling if compute.hidden_states_flops else ''}\n"
        f"{units.flops(compute.recomputed_flops)} if hidden states were recomputed, "
        f"{units.flops(compute.one_plain_model_flops)} for one model that cannot forget"
    )


def _layer_groups(report: PlanReport) -> str:
    return "  ".join(f"{group.depth}: {group.first_layer}-{group.last_layer}" for group in report.layer_groups)


def _boundaries(report: PlanReport) -> RenderableType:
    states = report.hidden_states
    table = plain_table("hidden states entering", "layer", "choice", "bytes", "storing saves")
    for column in (table.columns[1], table.columns[3], table.columns[4]):
        column.justify = "right"
    for line in states.boundaries:
        if line.stored:
            choice = "stored"
        else:
            choice = f"computed from layer {line.start_layer}" if line.start_layer else "computed from the tokens"
        table.add_row(
            f"depth {line.depth}",
            str(line.layer),
            choice,
            units.size(line.bytes),
            _saved(line.saved_seconds),
            style=None if line.stored else "dim",
        )
    said = (
        f"{'chosen by the plan' if states.chosen_by == 'plan' else 'chosen by the config'}; rank time over a first "
        f"training, at {states.gigaflops_per_rank:,.0f} GFLOP/s and {states.megabytes_per_second:,.0f} MB/s per rank "
        "(workers.gigaflops_per_rank, storage.megabytes_per_second)"
    )
    return Group(table, Text(said, style="dim"))


def _saved(seconds: float) -> str:
    shown = units.duration(abs(seconds))
    return f"-{shown}" if seconds < 0 and shown != units.duration(0) else shown


def _retention(report: PlanReport) -> Table:
    table = plain_table("deletions in one shard", *(str(row.deletions) for row in report.retention))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("mean remaining depth", *(f"{row.depth:.2f}" for row in report.retention))
    table.add_row("most that any orders can keep", *(f"{row.most_depth:.2f}" for row in report.retention), style="dim")
    return table
