"""How a deletion looks: its impact, its receipt, similar records, and its state.

In: reports of the runtime. Out: rich renderables. Prints nothing and asks the runtime nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import Glyphs, due_text, plain_table, state_text
from s3t_ray.run.deletion_list import ListedDeletion
from s3t_ray.run.reports import (
    DeletionReceipt,
    DeletionStatus,
    Duplicates,
    Impact,
    Likeness,
    OtherSpelling,
    ShardImpact,
)


def impact_view(impact: Impact) -> RenderableType:
    head = Text(f"would delete {units.plural(impact.records, 'record')}{_besides(impact)}; nothing was changed", "bold")
    return Group(
        head,
        *_set_aside(impact.set_aside, "would be erased at once"),
        *_named_unknown(impact.unknown_ids, impact.unknown_subjects),
        *_spelled(impact.other_spellings),
        *_alike(impact.likeness),
        *_shards(impact.shards),
    )


def list_view(deletions: Sequence[ListedDeletion], signs: Glyphs) -> RenderableType:
    """One row per requested deletion."""
    table = plain_table("deletion", "state", "records", "accepted", "due", "reference", "requester", "reason")
    table.columns[2].justify = "right"
    for each in deletions:
        about = (
            units.short_id(each.request_id),
            state_text(each.state, signs),
            units.count(each.records),
            each.accepted_at[:10],
            due_text(each),
        )
        for told in each.requests or (None,):
            said = ("", "", "") if told is None else (told.reference, told.requester, told.reason)
            shown = ("not what was sealed: see `s3t audit`", "", "") if told and not told.sealed else said
            table.add_row(*about, *(Text(units.printable(part or "")) for part in shown))
    return table


def receipt_view(receipt: DeletionReceipt) -> RenderableType:
    repeat = " (this request was accepted before: the same receipt)" if receipt.repeated else ""
    head = Text.assemble(
        (f"accepted {receipt.request_id}", "bold green"),
        f" at {receipt.accepted_at}{repeat}\n",
        f"{units.plural(receipt.records, 'record')} deleted{_already(receipt.already_deleted)}; "
        f"{units.plural(len(receipt.stages_pruned), 'stage')} taken out of service",
    )
    signed = () if receipt.proof is None else (Text(f"receipt {receipt.proof.receipt.hash}", style="dim"),)
    noted = () if receipt.note is None else (Text(f"note: {units.printable(receipt.note)}", style="yellow"),)
    return Group(
        head,
        *signed,
        *noted,
        *_set_aside(receipt.set_aside, "erased"),
        *_named_unknown(receipt.unknown_ids, receipt.unknown_subjects),
        *_spelled(receipt.other_spellings),
        *_alike(receipt.likeness),
        *_shards(receipt.shards),
    )


def settled_view(deletion: DeletionStatus, signs: Glyphs) -> Text:
    """One line with the state of a deletion after waiting for it."""
    time = "after" if deletion.state == "restored" else "since"
    return state_text(deletion.state, signs).append(f" {time} {units.duration(deletion.age_seconds)}", style="not dim")


def _besides(impact: Impact) -> str:
    held_out = f" ({units.count(impact.held_out)} of them held out)" if impact.held_out else ""
    return held_out + _already(impact.already_deleted)


def _already(records: int) -> str:
    return f", {units.count(records)} deleted before" if records else ""


def _named_unknown(ids: Sequence[str], subjects: Sequence[str]) -> list[Text]:
    lines = []
    for noun, names in (("id", ids), ("subject", subjects)):
        if names:
            lines.append(Text(f"unknown {units.plural(len(names), noun)}: {units.listed(names)}", style="yellow"))
    return lines


def _spelled(others: Sequence[OtherSpelling]) -> list[Text]:
    """Names that differ only by case, blanks or accents. Quoted, because a blank may be the only difference."""
    return [
        Text(
            f"not included: {units.plural(each.records, 'record')} of {each.kind} {each.spelling!r}, "
            f"another spelling of {each.named!r}",
            style="yellow",
        )
        for each in others
    ]


def _set_aside(rows: int, what: str) -> list[Text]:
    return [Text(f"{units.plural(rows, 'row')} that had been set aside as malformed: {what}")] if rows else []


def _alike(likeness: Likeness | None) -> list[Text]:
    """Records similar to the named ones: those deleted with them, and those kept."""
    if likeness is None:
        return []
    lines: list[Text] = []
    if likeness.taken_along:
        nearly = " or nearly the same" if likeness.reach == "near_duplicates" else ""
        lines.append(
            Text(f"{units.plural(likeness.taken_along, 'record')} of these because of the same{nearly} content")
        )
    if likeness.duplicates.records:
        lines.append(_kept(likeness.duplicates, "the same content", "--with-duplicates"))
    near = likeness.near_duplicates
    if near is None:
        lines.append(Text("near-duplicates are unknown: the data was read in without sketches", style="dim"))
    elif near.records:
        what = f"nearly the same content (similarity {likeness.threshold:g} or more)"
        lines.append(_kept(near, what, "--with-near-duplicates"))
    if likeness.forgotten:
        purged = units.plural(likeness.forgotten, "record")
        lines.append(Text(f"{purged} purged earlier: records similar to them can no longer be found", style="dim"))
    return lines


def _kept(found: Duplicates, what: str, option: str) -> Text:
    subjects = units.listed(f"{row.subject or 'nobody'} ({units.count(row.records)})" for row in found.subjects)
    return Text(
        f"kept: {units.plural(found.records, 'record')} with {what}; subjects: {subjects}; {option} deletes them too",
        style="yellow",
    )


def _shards(shards: Sequence[ShardImpact]) -> list[RenderableType]:
    """A row per shard: what leaves service, the remaining depths, and what healing costs."""
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
            units.count(shard.records),
            units.count(shard.stages),
            Text(f"{before} to {after or 'dead'}", style="red" if before and not after else ""),
            units.count(shard.retrain_stages),
            units.count(shard.retrain_records),
        )
    return ["", table]
