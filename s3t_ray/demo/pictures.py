"""The demo's two charts: the depth of each sequence over time, and the loss of what was served.

In: a plain history (depth points and marks, in seconds since the start) and measured losses. Out:
PNG files. The colours are safe for colour-blind readers (the Okabe-Ito palette), and each line also
has its own dash pattern. This module only draws: it never measures and never reads a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from s3t_ray.demo.label_layout import Span, label_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C4B8A")
DELETION_COLOUR = "#D55E00"
INK = "#333333"
_DASHES: tuple[tuple[int, tuple[float, ...]], ...] = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_DOTS_PER_INCH = 150
_ROW_INCHES = 0.21  # height of one row of labels


class MarkKind(Enum):
    """The kind of event at a mark."""

    DELETION = "deletion"  # a person's records were deleted: a thick line through every shard
    NOTE = "note"  # a receipt, a prune, a certificate: a thin line


@dataclass(frozen=True)
class DepthPoint:
    """From `seconds` until its next point, this sequence has this live depth."""

    seconds: float
    shard: int
    sequence: int
    depth: int


@dataclass(frozen=True)
class Mark:
    """A labelled event at one point in time."""

    seconds: float
    label: str
    kind: MarkKind = MarkKind.NOTE


@dataclass(frozen=True)
class ServedLoss:
    """The loss of what the run served at one moment: mean nats per response token.

    `forgotten` is the loss on the deleted person's records, or None if it was not measured.
    """

    moment: str
    held_out: float
    forgotten: float | None = None


def draw_depths(points: Sequence[DepthPoint], marks: Sequence[Mark], deepest: int, path: Path) -> Path:
    """Draw the depth of every sequence over time, with one panel per shard, as a PNG at `path`.

    `points` must not be empty. A sequence has depth 0 until its first point. `deepest` is L, the
    depth of a complete sequence.
    """
    shards = sorted({point.shard for point in points})
    end = max([point.seconds for point in points] + [mark.seconds for mark in marks]) * 1.03 or 1.0
    figure = _figure(width=10.5, height=1.3 + 2.1 * len(shards))
    panels = figure.subplots(len(shards), 1, sharex=True, squeeze=False)[:, 0]
    unit, scale = ("minutes", 60.0) if end > 180 else ("seconds", 1.0)
    for panel, shard in zip(panels, shards, strict=True):
        _draw_shard(
            panel, [point for point in points if point.shard == shard], end, scale, COLOURS[shard % len(COLOURS)]
        )
        panel.set_ylim(-0.3, deepest + 0.45)
        panel.set_yticks(range(deepest + 1))
        panel.set_ylabel(f"shard {shard}\ndepth")
        _draw_mark_lines(panel, marks, scale)
    panels[-1].set_xlim(0, end / scale)
    panels[-1].set_xlabel(f"{unit} since the start")
    figure.subplots_adjust(left=0.08, right=0.77, bottom=0.6 / figure.get_figheight(), top=0.97, hspace=0.16)
    _write_mark_labels(figure, panels[0], marks, scale, "Live depth of each sequence")
    return _save(figure, path)


def draw_losses(by_depth: Sequence[float], served: Sequence[ServedLoss], path: Path) -> Path:
    """Draw the held-out loss by depth before the deletion (index 0: the base model), and the served loss over time.

    Neither sequence may be empty. Losses are in nats per response token; both panels share one scale.
    """
    figure = _figure(width=10.5, height=4.4)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.45))
    held_out = COLOURS[0]
    _draw_curve(left, range(len(by_depth)), by_depth, held_out, "held-out records", above=True)
    left.set_xticks(range(len(by_depth)), ["0\n(base)", *map(str, range(1, len(by_depth)))])
    left.set_xlim(-0.4, len(by_depth) - 0.6)
    left.set_xlabel("depth served")
    left.set_ylabel("loss per response token (lower is better)")
    left.set_title("By depth, before the deletion", fontsize=11, color=INK, loc="left")
    places = range(len(served))
    forgotten = [(place, moment.forgotten) for place, moment in zip(places, served, strict=True)]
    known = [(place, loss) for place, loss in forgotten if loss is not None]
    forgotten_below = sum(loss for _, loss in known) < sum(served[place].held_out for place, _ in known)
    _draw_curve(right, places, [moment.held_out for moment in served], held_out, "held-out records", forgotten_below)
    if known:
        _draw_curve(
            right, [at for at, _ in known], [y for _, y in known], DELETION_COLOUR, "deleted person's records",
            above=not forgotten_below,
        )  # fmt: skip
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2, frameon=False)
    right.set_xticks(places, [moment.moment for moment in served])
    right.set_xlim(-0.45, len(served) - 0.55)
    right.set_title("As served, over time", fontsize=11, color=INK, loc="left")
    values = [*by_depth, *(moment.held_out for moment in served), *(loss for _, loss in known)]
    margin = 0.22 * (max(values) - min(values) or 1.0)
    left.set_ylim(min(values) - margin, max(values) + margin)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.24, top=0.92, wspace=0.05)
    return _save(figure, path)


def _draw_shard(panel: Axes, points: Sequence[DepthPoint], end: float, scale: float, colour: str) -> None:
    sequences = sorted({point.sequence for point in points})
    steps = {number: _steps([point for point in points if point.sequence == number], end) for number in sequences}
    times = sorted({time for line in steps.values() for time, _ in line})
    served = [max(_depth_at(line, time) for line in steps.values()) for time in times]
    panel.fill_between(
        [time / scale for time in times], served, step="post", color=colour, alpha=0.13, linewidth=0, label="served"
    )
    for row, number in enumerate(sequences):
        # Offset lines of equal depth so that they do not hide each other.
        shift = 0.09 * (row - (len(sequences) - 1) / 2)
        panel.step(
            [time / scale for time, _ in steps[number]], [depth + shift for _, depth in steps[number]], where="post",
            color=colour, linewidth=2.2, linestyle=_DASHES[row % len(_DASHES)], label=f"sequence {number}",
        )  # fmt: skip
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3.2)


def _steps(points: Sequence[DepthPoint], end: float) -> list[tuple[float, int]]:
    """(seconds, depth) of one sequence from 0 to `end`, in time order."""
    line = [(0.0, 0), *((point.seconds, point.depth) for point in sorted(points, key=lambda point: point.seconds))]
    return [*line, (end, line[-1][1])]


def _depth_at(line: Sequence[tuple[float, int]], time: float) -> int:
    return [depth for seconds, depth in line if seconds <= time][-1]


def _draw_mark_lines(panel: Axes, marks: Sequence[Mark], scale: float) -> None:
    for mark in marks:
        heavy = mark.kind is MarkKind.DELETION
        panel.axvline(
            mark.seconds / scale, color=_mark_colour(mark), linewidth=1.8 if heavy else 0.9,
            linestyle="-" if heavy else (0, (2, 2)), zorder=1.5,
        )  # fmt: skip


def _write_mark_labels(figure: Figure, panel: Axes, marks: Sequence[Mark], scale: float, title: str) -> None:
    """Write the labels above the top panel, in as many rows as they need not to overlap, and the title."""
    from matplotlib.patheffects import withStroke

    ordered = sorted(marks, key=lambda mark: mark.seconds)
    across = panel.get_xaxis_transform()
    texts = [
        panel.annotate(
            mark.label, (mark.seconds / scale, 1), xycoords=across, xytext=(4, 0), textcoords="offset points",
            color=_mark_colour(mark), fontsize=9, path_effects=[withStroke(linewidth=3, foreground="white")],
            fontweight="bold" if mark.kind is MarkKind.DELETION else "normal", zorder=5,
        )
        for mark in ordered
    ]  # fmt: skip
    spans = []
    for text, mark in zip(texts, ordered, strict=True):
        if text.get_window_extent().x1 > figure.bbox.x1 - 8:
            text.set_horizontalalignment("right")
            text.set_x(-4)
        box, stem = text.get_window_extent(), across.transform((mark.seconds / scale, 1))[0]
        spans.append(Span(float(box.x0), float(box.x1), float(stem)))
    rows = label_rows(spans)
    for text, row in zip(texts, rows, strict=True):
        up = 72 * _ROW_INCHES * row + 5
        text.set_y(up)
        # A thin stem extends the mark's line up to its label.
        panel.annotate(
            "", text.xy, xycoords=across, xytext=(0, up + 9), textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": text.get_color(), "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    head = 0.42 + _ROW_INCHES * (max(rows, default=-1) + 1)
    height = figure.get_figheight()
    figure.set_figheight(height + head)
    figure.subplots_adjust(bottom=figure.subplotpars.bottom * height / (height + head), top=1 - head / (height + head))
    figure.text(0.08, 1 - 0.13 / (height + head), title, fontsize=12, color=INK, va="top")


def _draw_curve(panel: Axes, xs: Sequence[int], ys: Sequence[float], colour: str, label: str, above: bool) -> None:
    from matplotlib.patheffects import withStroke

    marker = "o" if colour == COLOURS[0] else "s"
    panel.plot(xs, ys, color=colour, marker=marker, markersize=7, linewidth=2, label=label)
    for x, y in zip(xs, ys, strict=True):
        panel.annotate(
            f"{y:.2f}", (x, y), xytext=(0, 8 if above else -17), textcoords="offset points", ha="center",
            fontsize=9.5, color=colour, path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def _mark_colour(mark: Mark) -> str:
    return DELETION_COLOUR if mark.kind is MarkKind.DELETION else "#555555"


def _figure(width: float, height: float) -> Figure:
    # The object API needs no window system and has no global state. Importing here keeps matplotlib optional.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    for panel in figure.axes:
        panel.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")
    return path
