"""Labels above a chart never touch; stems cross them only where nothing else is possible."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.demo.label_layout import GAP, Span, label_rows


def beside(stem: float, width: float, leftward: bool) -> Span:
    return Span(stem - 4 - width, stem - 4, stem) if leftward else Span(stem + 4, stem + 4 + width, stem)


spans = st.builds(beside, st.floats(0, 1000), st.floats(5, 400), st.booleans())


@given(st.lists(spans, max_size=12).map(lambda found: sorted(found, key=lambda span: span.stem)))
def test_labels_of_one_row_never_touch(labels: list[Span]) -> None:
    rows = label_rows(labels)
    assert len(rows) == len(labels)
    placed = list(zip(labels, rows, strict=True))
    for index, (one, row) in enumerate(placed):
        for other, at in placed[index + 1 :]:
            assert row != at or one.right + GAP <= other.left or other.right + GAP <= one.left


def test_labels_far_apart_share_the_lowest_row() -> None:
    assert label_rows([Span(4, 50, 0), Span(104, 150, 100), Span(204, 250, 200)]) == [0, 0, 0]


def test_labels_of_one_moment_read_from_top_to_bottom() -> None:
    assert label_rows([Span(104, 300, 100), Span(104.2, 250, 100.2), Span(104.4, 200, 100.4)]) == [2, 1, 0]


def test_a_stem_goes_round_the_label_before_it() -> None:
    early, late = Span(4, 300, 0), Span(204, 260, 200)
    assert label_rows([early, late]) == [1, 0]  # in one row they would touch; below, the late stem would cross


def test_no_labels() -> None:
    assert label_rows([]) == []
