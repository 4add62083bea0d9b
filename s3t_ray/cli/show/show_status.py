"""How the state of a run looks: shards with the live depth of each sequence, stages, deletions, failures.

In: `Status` and the values in it. Out: rich renderables, for `s3t status`, the live display and the
receipts. Prints nothing and asks the runtime nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3t_ray.cli.show import units
from s3t_ray.ledger.values import RunningStage
from s3t_ray.run.reports import DeletionStatus, Failure, ShardStatus, Status

SEQUENCES_IN_FULL = 8
"""A shard with more sequences than this shows one block per sequence instead of one line."""
BLOCKS_A_LINE = 48
RESTORED_SHOWN = 5
STATES = ("accepted", "pruned", "purged", "restored")
_STATE_STYLES = {"accepted": "yellow", "pruned": "cyan", "purged": "cyan", "restored": "green"}


@dataclass(frozen=True)
class Glyphs:
    """The symbols of the display, limited to what the stream can encode."""

    full: str
    empty: str
    arrow: str
    dead: str
    heights: str


UNICODE = Glyphs(full="█", empty="░", arrow="→", dead="·", heights="▁▂▃▄▅▆▇█")
ASCII = Glyphs(full="#", empty=".", arrow=">", dead=".", heights=":-=+*#%@")


def glyphs(console: Console) -> Glyphs:
    return UNICODE if console.encoding.lower().replace("-", "").startswith("utf") else ASCII


def status_view(status: Status, signs: Glyphs) -> RenderableType:
    """The complete output of `s3t status`."""
    parts: list[RenderableType] = [headline(status), *_waiting(status), "", shards_table(status, signs)]
    if status.running:
        parts += ["", running_table(status.running, signs)]
    if status.deletions:
        parts += ["", deletions_table(status.deletions, signs)]
    if status.failures:
        parts += ["", failures_table(status.failures)]
    if facts := _facts_of_the_data(status):
        parts += ["", Text("\n".join(facts), style="dim")]
    return Group(*parts)


def _facts_of_the_data(status: Status) -> list[str]:
    facts = []
    if status.ids_derived:
        facts.append("ids are derived from the records' contents (data.id_field is null, or the data has no ids)")
    if status.teaching_nothing:
        facts.append(
            f"{units.plural(status.teaching_nothing, 'record')} read in without a response within task.max_tokens: "
            "nothing is learned from them"
        )
    if status.largest_slice >= 2 * max(1, status.smallest_slice):
        empty = f", {units.plural(status.empty_slices, 'slice')} empty" if status.empty_slices else ""
        facts.append(
            f"slices hold {units.count(status.smallest_slice)} to {units.count(status.largest_slice)} records{empty}"
        )
    return facts


def _waiting(status: Status) -> list[Text]:
    """What worker groups wait for; empty if there is nothing to train."""
    return [Text(units.printable(status.waiting), style="yellow")] if status.waiting and not status.settled else []


def live_view(status: Status, signs: Glyphs) -> RenderableType:
    """Progress during training, short enough for one screen: stages first."""
    parts: list[RenderableType] = [headline(status), *_waiting(status)]
    if status.running:
        parts.append(running_table(status.running, signs))
    unfinished = tuple(deletion for deletion in status.deletions if deletion.state != "restored")
    if unfinished:
        parts.append(deletions_table(unfinished, signs))
    if status.failures:
        parts.append(failures_table(status.failures))
    parts.append(shards_table(status, signs, short=True))
    return Group(*parts)


def headline(status: Status) -> Text:
    state = ("settled", "bold green") if status.settled else ("not settled", "bold yellow")
    held_out = f", {units.count(status.held_out)} held out" if status.held_out else ""
    return Text.assemble(
        (units.printable(status.name), "bold"),
        "  ",
        state,
        f"\n{units.count(status.records)} records in {units.plural(len(status.shards), 'shard')} of "
        f"{units.plural(status.slices, 'slice')}{held_out}  ",
        (units.printable(status.storage), "dim"),
    )


def shards_table(status: Status, signs: Glyphs, short: bool = False) -> Table:
    """A row per shard. `short` gives every sequence one block: the higher, the deeper; a dot is depth 0."""
    table = plain_table("shard", "records", "depth", "sequences", "trained", "running", "queued", "failed")
    for column in (0, 1, 2, 4, 5, 6, 7):
        table.columns[column].justify = "right"
    struck = {shard for deletion in status.deletions for shard, _, _ in deletion.hits}
    for shard in status.shards:
        table.add_row(
            str(shard.shard),
            units.count(shard.records),
            depth_text(shard.depth, status.slices, died=shard.shard in struck),
            sequences_text(shard, status.slices, signs, short),
            f"{shard.trained}/{shard.wanted}",
            _number(shard.running, "cyan"),
            _number(shard.queued, ""),
            _number(shard.failed, "bold red"),
        )
    return table


def depth_text(depth: int, slices: int, died: bool) -> Text:
    """Depth that a shard serves: "4/6"; "dead" if deletions removed everything (not if it is still untrained)."""
    if depth == 0 and died:
        return Text("dead", style="bold red")
    return Text(f"{depth}/{slices}", style="green" if depth == slices else "yellow")


def sequences_text(shard: ShardStatus, slices: int, signs: Glyphs, short: bool) -> Text:
    """One line per sequence, "0→1→2 ██░ 2", its live part bright; or one block per sequence."""
    if short or len(shard.depths) > SEQUENCES_IN_FULL:
        blocks = "".join(_block(depth, slices, signs) for depth in shard.depths)
        return Text("\n").join(Text(line) for line in _lines(blocks, BLOCKS_A_LINE))
    return Text("\n").join(
        _sequence_line(order, depth, signs) for order, depth in zip(shard.orders, shard.depths, strict=True)
    )


def _sequence_line(order: Sequence[int], depth: int, signs: Glyphs) -> Text:
    """The order, and a bar with one block per slice (at most 24 blocks)."""
    line = Text()
    if len(order) <= 12:
        cut = len(signs.arrow.join(str(index) for index in order[:depth]))
        line.append(units.order(order, signs.arrow), style="dim")
        line.stylize("not dim bold", 0, cut)
    else:
        line.append(units.order(order, signs.arrow), style="dim")
    blocks = min(len(order), 24)
    filled = depth * blocks // len(order) or min(depth, 1)
    line.append("  ").append(signs.full * filled, style="green").append(signs.empty * (blocks - filled), style="dim")
    return line.append(f" {depth}")


def _block(depth: int, slices: int, signs: Glyphs) -> str:
    if depth == 0:
        return signs.dead
    steps = len(signs.heights)
    return signs.heights[min(steps, -(-depth * steps // slices)) - 1]


def _lines(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]


def running_table(running: Sequence[RunningStage], signs: Glyphs) -> Table:
    table = plain_table("stage", "shard", "slices", "group", "steps", "loss", "speed")
    for column in (1, 3, 5, 6):
        table.columns[column].justify = "right"
    for stage in running:
        table.add_row(
            units.short_id(stage.stage_id),
            str(stage.shard),
            units.order(stage.slices, signs.arrow),
            str(stage.group),
            steps_text(stage, signs),
            "" if stage.loss is None else f"{stage.loss:.4f}",
            "" if stage.tokens_per_second is None else units.rate(stage.tokens_per_second),
        )
    return table


def steps_text(stage: RunningStage, signs: Glyphs) -> Text:
    """A bar of 10 blocks and "30/120"; "loading" before the first step is planned."""
    if stage.steps == 0:
        return Text("loading", style="dim")
    filled = min(10, 10 * stage.step // stage.steps)
    bar = Text(signs.full * filled, style="cyan").append(signs.empty * (10 - filled), style="dim")
    return bar.append(f" {stage.step}/{stage.steps}", style="not dim")


def deletions_table(deletions: Sequence[DeletionStatus], signs: Glyphs) -> Table:
    """Unfinished deletions, and the last few restored ones."""
    due = any(deletion.due_at for deletion in deletions)
    table = plain_table("deletion", "state", "records", "shard: slices", "age", *(("due",) if due else ()))
    table.columns[2].justify = "right"
    unfinished = [deletion for deletion in deletions if deletion.state != "restored"]
    restored = [deletion for deletion in deletions if deletion.state == "restored"]
    for deletion in (*restored[-RESTORED_SHOWN:], *unfinished):
        table.add_row(
            units.short_id(deletion.request_id),
            state_text(deletion.state, signs),
            units.count(deletion.records),
            hits_text(deletion.hits),
            age_text(deletion),
            *((due_text(deletion),) if due else ()),
        )
    hidden = len(restored) - RESTORED_SHOWN
    if hidden > 0:
        table.caption = f"and {units.count(hidden)} restored earlier"
        table.caption_justify = "left"
    return table


def state_text(state: str, signs: Glyphs) -> Text:
    """State of a deletion among accepted, pruned, purged, restored: "██░░ pruned"."""
    reached = STATES.index(state) + 1
    style = _STATE_STYLES[state]
    bar = Text(signs.full * reached, style=style).append(signs.empty * (len(STATES) - reached), style="dim")
    return bar.append(f" {state}", style=style)


def age_text(deletion: DeletionStatus) -> str:
    """Age of an unfinished deletion, or how long a restored one took."""
    age = units.duration(deletion.age_seconds)
    return f"took {age}" if deletion.state == "restored" else f"{age} ago"


def due_text(deletion: DeletionStatus) -> Text:
    """The due date of the purge; red if it has passed and the records are not purged."""
    if deletion.due_at is None:
        return Text("")
    late = deletion.purged_at is not None and deletion.purged_at > deletion.due_at
    return Text(
        deletion.due_at[:10] + (" overdue" if deletion.overdue else " late" if late else ""),
        style="bold red" if deletion.overdue else "yellow" if late else "",
    )


def hits_text(hits: Sequence[tuple[int, int, int]], most: int = 4) -> str:
    """((0, 2, 1), (0, 4, 3)) -> "0: 2, 4"; held-out records (shard -1) are named as such."""
    slices: dict[int, list[int]] = {}
    for shard, slice_index, _ in hits:
        slices.setdefault(shard, []).append(slice_index)
    named = [
        "held out" if shard < 0 else f"{shard}: {', '.join(str(index) for index in sorted(found))}"
        for shard, found in sorted(slices.items())
    ]
    rest = len(named) - most
    return "; ".join(named[:most]) + (f"; and {rest} more shards" if rest > 0 else "")


def failures_table(failures: Sequence[Failure]) -> Table:
    table = plain_table("failed", "attempts", "error")
    table.columns[1].justify = "right"
    for failure in failures:
        table.add_row(
            failure.title,
            str(failure.attempts),
            Text(units.printable(failure.error), style="red"),
        )
    return table


def plain_table(*columns: str) -> Table:
    """A table without a frame and with dim headings, readable in terminals and logs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _number(number: int, style: str) -> Text:
    """Show zero as a dim dash, so that other numbers stand out."""
    return Text(units.count(number), style=style) if number else Text("-", style="dim")
