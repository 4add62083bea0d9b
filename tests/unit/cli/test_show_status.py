"""How the state of a run looks."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from s3t_ray.cli.show.show_status import (
    ASCII,
    UNICODE,
    Glyphs,
    glyphs,
    hits_text,
    live_view,
    sequences_text,
    shards_table,
    status_view,
)
from s3t_ray.run.reports import ShardStatus
from tests.fakes.command_line import FAILURE, deletion, running, shard, status


def drawn(view: RenderableType, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_sequence_shows_its_order_and_a_block_for_each_live_slice() -> None:
    assert sequences_text(shard(depths=(3, 1)), 3, UNICODE, short=False).plain == "0→1→2  ███ 3\n1→2→0  █░░ 1"


def test_the_live_part_of_an_order_is_bright() -> None:
    line = sequences_text(shard(depths=(2,)), 3, UNICODE, short=False)
    bright = [span for span in line.spans if "bold" in str(span.style)]
    assert [line.plain[span.start : span.end] for span in bright] == ["0→1"]


def test_a_short_display_has_one_block_a_sequence() -> None:
    assert sequences_text(shard(depths=(3, 0)), 3, UNICODE, short=True).plain == "█·"


def test_many_sequences_are_always_short() -> None:
    depths = tuple(range(11))
    many = ShardStatus(
        shard=0, records=9, orders=((0,),) * 11, depths=depths, wanted=1, trained=1, running=0, queued=0, failed=0
    )
    assert sequences_text(many, 10, UNICODE, short=False).plain == "·▁▂▃▄▄▅▆▇██"


@given(st.integers(1, 70), st.data())
def test_blocks_never_hide_a_dead_or_a_whole_sequence(slices: int, data: st.DataObject) -> None:
    depth = data.draw(st.integers(0, slices))
    one = ShardStatus(
        shard=0, records=1, orders=(tuple(range(slices)),), depths=(depth,), wanted=1, trained=1, running=0, queued=0,
        failed=0,
    )  # fmt: skip
    short = sequences_text(one, slices, UNICODE, short=True).plain
    line = sequences_text(one, slices, UNICODE, short=False).plain
    assert (short == "·") == (depth == 0) == ("█" not in line)
    assert ("░" not in line) == (depth == slices)
    assert depth < slices or short == "█"


def test_a_shard_is_dead_by_deletions_not_before_its_first_stage() -> None:
    hit = deletion("pruned").model_copy(update={"hits": ((1, 0, 1),)})
    assert "dead" in drawn(shards_table(status(deletions=(hit,)), UNICODE))
    fresh = drawn(shards_table(status(), UNICODE))
    assert "dead" not in fresh
    assert "0/3" in fresh


def test_status_names_the_stages_and_the_settings_that_matter() -> None:
    text = drawn(status_view(status(ids_derived=True, failures=(FAILURE,), running=(running(),)), UNICODE))
    assert "2,468 records in 2 shards of 3 slices, 10 held out" in text
    assert "not settled" in text
    assert "4/6" in text
    assert "aaaaaaaaaaaa" in text
    assert "3/10" in text
    assert "900 tok/s" in text
    assert "loss is not finite at step 3" in text
    assert "data.id_field is null" in text


def test_deletions_show_state_and_age() -> None:
    done = deletion("restored", "e" * 64, 41.0)
    text = drawn(status_view(status(deletions=(done, deletion("pruned"))), UNICODE))
    assert "██░░ pruned" in text
    assert "2 min 5 s ago" in text
    assert "████ restored" in text
    assert "took 41 s" in text
    assert "held out; 0: 2" in text


def test_only_the_last_restored_deletions_are_listed() -> None:
    done = tuple(deletion("restored", f"{index:064d}") for index in range(12))
    text = drawn(status_view(status(deletions=(*done, deletion("accepted"))), UNICODE))
    assert text.count("restored") == 5 + 1
    assert "and 7 restored earlier" in text
    assert "accepted" in text


def test_hits_in_many_shards_are_counted() -> None:
    assert hits_text([(shard, 1, 1) for shard in range(6)], most=2) == "0: 1; 1: 1; and 4 more shards"


def test_the_live_view_drops_what_is_over() -> None:
    text = drawn(live_view(status(running=(running(),), deletions=(deletion("restored"),)), UNICODE))
    assert "aaaaaaaaaaaa" in text
    assert "restored" not in text


def test_a_stage_without_steps_is_loading() -> None:
    assert "loading" in drawn(live_view(status(running=(running(step=0, steps=0),)), UNICODE))


def test_signs_fit_the_encoding() -> None:
    class Latin(io.StringIO):
        encoding = "iso-8859-1"

    assert glyphs(Console(file=io.StringIO())) is UNICODE
    assert glyphs(Console(file=Latin())) is ASCII


def test_ascii_signs_make_ascii_output() -> None:
    signs: Glyphs = ASCII
    drawn(status_view(status(running=(running(),), deletions=(deletion(),)), signs)).encode("ascii")


def test_markup_in_names_is_text() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(status_view(status(storage="/runs/[bold]x[/bold]"), UNICODE))
    assert "/runs/[bold]x[/bold]" in console.file.getvalue()  # type: ignore[attr-defined]
