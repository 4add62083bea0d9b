"""The front and the recommendation."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from s3t_ray.sweep.choose import Need, best, front, objectives, recommendation
from s3t_ray.sweep.show_sweep import draw, table
from tests.unit.sweep.outcomes import outcome

HOUR = 3.6e15
SMALL = outcome("small", flops=HOUR, deletions=5.0, depth_after=(4.0, 1.0))
MIDDLE = outcome("middle", flops=3 * HOUR, deletions=9.0, depth_after=(4.0, 2.0), storage=2000)
LARGE = outcome("large", flops=9 * HOUR, deletions=20.0, depth_after=(4.0, 3.0), storage=3000)
WASTE = outcome("waste", flops=10 * HOUR, deletions=9.0, depth_after=(4.0, 2.0), storage=9000)
ALL = (SMALL, MIDDLE, LARGE, WASTE)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_the_front_is_what_nothing_beats(values: list[tuple[int, int, int]]) -> None:
    outcomes = {id(one): (one, value) for value in values for one in [outcome("x")]}
    kept = front([one for one, _ in outcomes.values()], lambda one: tuple(map(float, outcomes[id(one)][1])))
    for one, own in outcomes.values():
        beaten = any(
            all(a <= b for a, b in zip(value, own, strict=True)) and value != own for _, value in outcomes.values()
        )
        assert (id(one) in {id(each) for each in kept}) == (not beaten)


def test_a_trial_that_is_worse_in_everything_is_not_on_the_front() -> None:
    assert front(ALL, lambda one: objectives(one, 1)) == (SMALL, MIDDLE, LARGE)


def test_the_best_is_the_deepest_that_can_be_paid() -> None:
    assert best(ALL, Need(1, None, 1.0)) is LARGE
    assert best(ALL, Need(1, 8.0, 1.0)) is MIDDLE
    assert best(ALL, Need(1, 8.0, 10.0)) is LARGE, "ten times as fast a GPU"
    assert best(ALL, Need(1, 0.5, 1.0)) is None
    assert best(ALL, Need(0, None, 1.0)) is SMALL, "with nothing to delete all are equal, and the cheapest wins"


def test_a_measured_loss_decides_where_there_is_one() -> None:
    shallow = outcome("good base", losses=(1.0, 0.9, 0.8, 0.8, 0.8), depth_after=(4.0, 1.0))
    deep = outcome("bad base", losses=(5.0, 4.0, 3.0, 2.0, 1.0), depth_after=(4.0, 3.0))
    assert best((shallow, deep), Need(1, None, 1.0)) is shallow


def test_the_recommendation_says_what_and_why() -> None:
    text = recommendation(ALL, Need(1, 8.0, 1.0))
    assert text.startswith("For 1 deletion without healing and 8 GPU hours (at 1 TFLOP/s per GPU), use middle: ")
    assert "50% of its depth" in text and "3 GPU hours" in text
    assert "At half the cost or less, the best is small" in text
    assert "With a larger budget, use large" in text
    assert "no trial is cheap enough: the cheapest, small, takes 1 GPU hours" in recommendation(ALL, Need(1, 0.5, 1.0))
    worn = outcome("worn", deletions=5.0, depth_after=tuple([4.0] + [0.0] * 9))
    assert "expected to be dead after 5 deletions" in recommendation((worn,), Need(9, None, 1.0))


def test_table_and_picture_show_every_trial(tmp_path: Path) -> None:
    need = Need(1, None, 1.0)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(table(ALL, (SMALL, LARGE), need))
    lines = [line for line in console.export_text().splitlines() if any(one.label in line for one in ALL)]
    assert [("*" in line) for line in lines] == [True, False, True, False]
    picture = draw(ALL, (SMALL, LARGE), need, LARGE, tmp_path / "sweep.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
