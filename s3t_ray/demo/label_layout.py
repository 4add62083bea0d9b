"""Places the labels above a chart so that no two overlap. Pure: numbers in, rows out.

Each label sits beside a vertical stem that rises from its point in time. In: the left and right
end of each label and the position of its stem. Out: the label's row, 0 at the bottom. Labels in
one row never overlap. A stem crosses a label only if no other layout is possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 10.0
"""Minimum distance between two labels in one row, in the unit of the spans (pixels)."""


@dataclass(frozen=True)
class Span:
    """One label: its left and right end, and the position of its stem (left or right of the text)."""

    left: float
    right: float
    stem: float


def label_rows(spans: Sequence[Span]) -> list[int]:
    """The row of each span. Later labels get lower rows, so the labels read from top to bottom in time."""
    placed: list[tuple[Span, int]] = []
    rows = [0] * len(spans)
    for index in reversed(range(len(spans))):
        span = spans[index]
        free = [row for row in range(len(spans)) if not any(at == row and _touch(span, other) for other, at in placed)]
        rows[index] = min(free, key=lambda row: (_crossings(span, row, placed), row))
        placed.append((span, rows[index]))
    return rows


def _touch(one: Span, other: Span) -> bool:
    return one.left < other.right + GAP and other.left < one.right + GAP


def _crossings(span: Span, row: int, placed: Sequence[tuple[Span, int]]) -> int:
    """The number of stems that cross a label if `span` goes into `row`."""
    own = sum(1 for other, at in placed if at < row and other.left < span.stem < other.right)
    theirs = sum(1 for other, at in placed if at > row and span.left < other.stem < span.right)
    return own + theirs
