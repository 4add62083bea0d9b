"""Where the labels above a chart go, so that no two touch. Pure: numbers in, rows out.

Each label stands beside a stem that comes up from its moment in the chart. In: where each label
begins and ends and where its stem is. Out: its row, 0 at the bottom. Labels of one row never
overlap; stems run through labels only where nothing else is possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 10.0
"""Least distance between two labels of one row, in the unit of the spans (pixels)."""


@dataclass(frozen=True)
class Span:
    """One label: its left and right end, and the place of its stem (left or right of the text)."""

    left: float
    right: float
    stem: float


def label_rows(spans: Sequence[Span]) -> list[int]:
    """A row for each span. Later labels are placed lower, so rows read from top to bottom in time."""
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
    """How many stems run through a label if `span` goes to `row`."""
    own = sum(1 for other, at in placed if at < row and other.left < span.stem < other.right)
    theirs = sum(1 for other, at in placed if at > row and span.left < other.stem < span.right)
    return own + theirs
