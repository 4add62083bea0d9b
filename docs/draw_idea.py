"""Draws docs/idea.svg, the README's picture of the method. Run it anew after changing it:

$ python docs/draw_idea.py docs/idea.svg

What is drawn is computed: which stages a deletion strikes follows from the orders below.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

SLICES = ("A", "B", "C", "D")
ORDERS = ((0, 1, 2, 3), (2, 3, 0, 1), (3, 0, 1, 2))
STRUCK = 2  # the slice that holds the deleted record
# Okabe and Ito's colours: told apart by colour-blind readers; every chip has its letter as well.
SLICE_COLOURS = ("#56B4E9", "#009E73", "#E69F00", "#CC79A7")
STRIKE, INK, FAINT, FROZEN = "#D55E00", "#222222", "#6B6B6B", "#ECECEC"

COLUMN, GROUP, GAP = 2.1, 0.62, 0.55  # width of a model, height of a layer group, space between models
TOP = 5.2  # upper edge of the models
LEFT = 4.35  # left edge of the first model


def depth_left(order: tuple[int, ...]) -> int:
    """Stages before the first that has seen the struck slice."""
    return order.index(STRUCK)


def draw(path: Path) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "s3t_ray"  # the same bytes each time
    figure = Figure(figsize=(12.6, 6.35))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 12.6)
    axes.set_ylim(0.1, 6.45)
    axes.axis("off")
    _draw_data(axes)
    best = max(range(len(ORDERS)), key=lambda index: depth_left(ORDERS[index]))
    for index, order in enumerate(ORDERS):
        _draw_sequence(axes, LEFT + index * (COLUMN + GAP), index, order, serves=index == best)
    _draw_depth_axis(axes)
    _draw_words(axes)
    figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_data(axes: Axes) -> None:
    x, width, height = 0.45, 2.3, 0.72
    _write(axes, x, TOP + 0.95, "One shard of the data", size=13, weight="bold")
    _write(axes, x, TOP + 0.65, "its records, in slices", size=10.5, colour=FAINT)
    for index in range(len(SLICES)):
        y = TOP - (index + 1) * (height + 0.12) + 0.12
        axes.add_patch(Rectangle((x, y), width, height, facecolor=SLICE_COLOURS[index], alpha=0.28, edgecolor="none"))
        _chip(axes, x + 0.3, y + height / 2, index, size=0.34)
        for row in range(2):
            for column in range(6):
                struck = index == STRUCK and (row, column) == (0, 5)
                axes.add_patch(
                    Rectangle(
                        (x + 0.68 + 0.25 * column, y + 0.4 - 0.25 * row), 0.17, 0.17, linewidth=0,
                        facecolor=STRIKE if struck else "white",
                    )
                )  # fmt: skip
        if index == STRUCK:
            _draw_strike(axes, x + 0.68 + 0.25 * 5 + 0.085, y + 0.4 + 0.085, x + width)


def _draw_strike(axes: Axes, x: float, y: float, edge: float) -> None:
    """What happens to one record, and an arrow to it."""
    axes.annotate(
        "delete this\nrecord", (x + 0.02, y), (edge + 0.22, y - 0.02), va="center",
        fontsize=11, color=STRIKE, weight="bold",
        arrowprops={"arrowstyle": "-|>", "color": STRIKE, "linewidth": 2, "shrinkA": 3, "shrinkB": 7},
    )  # fmt: skip


def _draw_sequence(axes: Axes, x: float, index: int, order: tuple[int, ...], serves: bool) -> None:
    left = depth_left(order)
    _write(axes, x, TOP + 0.95, f"Sequence {index}", size=13, weight="bold")
    _write(axes, x, TOP + 0.65, "order " + " → ".join(SLICES[place] for place in order), size=10.5, colour=FAINT)
    axes.add_patch(Rectangle((x, TOP), COLUMN, 0.3, facecolor=FROZEN, edgecolor="white"))
    _write(axes, x + COLUMN / 2, TOP + 0.15, "answers", size=9, colour=FAINT, align="center")
    for position in range(len(order)):
        _draw_stage(axes, x, TOP - (position + 1) * GROUP, order[: position + 1], live=position < left)
    bottom = TOP - len(order) * GROUP - 0.5
    axes.add_patch(Rectangle((x, bottom), COLUMN, 0.5, facecolor=FROZEN, edgecolor="white"))
    _write(axes, x + COLUMN / 2, bottom + 0.25, "lower layers: frozen", size=9, colour=FAINT, align="center")
    if left:
        # What is left of this model: the live stages and the base below them.
        axes.add_patch(
            Rectangle((x, TOP - left * GROUP), COLUMN, left * GROUP, fill=False, edgecolor=INK, linewidth=2.2)
        )
    _write(
        axes, x + COLUMN / 2, bottom - 0.27, f"depth left: {left} of {len(order)}", size=12, weight="bold",
        colour=INK if left else STRIKE, align="center",
    )  # fmt: skip
    word = "serves for this shard, at once" if serves else ("in reserve" if left else "dead until healed")
    _write(axes, x + COLUMN / 2, bottom - 0.56, word, size=10, colour=INK if serves else FAINT, align="center")


def _draw_stage(axes: Axes, x: float, y: float, learned: tuple[int, ...], live: bool) -> None:
    """One layer group and the slices its adapter has learned from."""
    axes.add_patch(Rectangle((x, y), COLUMN, GROUP, facecolor="white" if live else "#FBEDE3", edgecolor="#C8C8C8"))
    if not live:
        axes.add_patch(Rectangle((x, y), COLUMN, GROUP, fill=False, hatch="////", edgecolor="#F0C3A0", linewidth=0))
    for column, place in enumerate(learned):
        _chip(axes, x + 0.33 + 0.48 * column, y + GROUP / 2, place, size=0.34, faded=not live, struck=place == STRUCK)


def _chip(axes: Axes, x: float, y: float, place: int, size: float, faded: bool = False, struck: bool = False) -> None:
    axes.add_patch(
        Rectangle(
            (x - size / 2, y - size / 2), size, size, facecolor=SLICE_COLOURS[place], alpha=0.35 if faded else 1.0,
            linewidth=0,
        )
    )  # fmt: skip
    axes.text(x, y - 0.01, SLICES[place], ha="center", va="center", fontsize=11, weight="bold", color=INK)
    if struck:
        axes.add_patch(
            Rectangle(
                (x - size / 2 - 0.03, y - size / 2 - 0.03), size + 0.06, size + 0.06, fill=False, edgecolor=STRIKE,
                linewidth=2,
            )
        )  # fmt: skip


def _draw_depth_axis(axes: Axes) -> None:
    x = LEFT - 0.2
    for depth in range(1, len(SLICES) + 1):
        _write(axes, x, TOP - (depth - 0.5) * GROUP, f"{depth}", size=10, colour=FAINT, align="right")
    _write(axes, x, TOP + 0.15, "stage", size=10, colour=FAINT, align="right")


def _draw_words(axes: Axes) -> None:
    lines = (
        "Stage i trains an adapter for the i-th layer group from the top, on the first i slices of its sequence.",
        "A deletion strikes the stages that have seen its slice, and no others; those above serve on with no training.",
        "The struck stages are then trained again without the record, bit for bit as in a run that never saw it.",
        "Other shards are not touched; the answers of all shards' deepest live models are averaged.",
    )
    for row, line in enumerate(lines):
        _write(axes, 0.45, 1.25 - 0.3 * row, line, size=11)


def _write(
    axes: Axes, x: float, y: float, text: str, size: float, colour: str = INK, weight: str = "normal",
    align: str = "left", vertical: str = "center",
) -> None:  # fmt: skip
    axes.text(x, y, text, fontsize=size, color=colour, weight=weight, ha=align, va=vertical)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "idea.svg"))
