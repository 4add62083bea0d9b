"""The pictures hold what they were given: checked on the drawn objects, and on the PNG written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from s3t_ray.demo import pictures
from s3t_ray.demo.pictures import DepthPoint, Mark, MarkKind, ServedLoss, draw_depths, draw_losses

POINTS = [
    DepthPoint(10, 0, 0, 1),
    DepthPoint(20, 0, 0, 2),
    DepthPoint(12, 0, 1, 1),
    DepthPoint(15, 1, 0, 1),
    DepthPoint(30, 1, 0, 0),
]
MARKS = [Mark(30, "delete Ada Lovelace", MarkKind.DELETION), Mark(30.1, "receipt 4f2a"), Mark(39, "certificate 4f2a")]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = pictures._save

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(pictures, "_save", keep)
    return figures


def test_depths_are_steps_of_each_sequence_in_its_shards_panel(drawn: list[Figure], tmp_path: Path) -> None:
    path = draw_depths(POINTS, MARKS, 2, tmp_path / "run" / "depths.png")
    assert imread(path).shape[1] > 1000
    panels = drawn[0].axes
    assert len(panels) == 2
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    assert {"sequence 0", "sequence 1"} <= set(lines)
    assert [round(depth) for depth in numbers(lines["sequence 0"].get_ydata())] == [0, 1, 2, 2]
    assert numbers(lines["sequence 0"].get_xdata())[:3] == [0, 10, 20]
    assert lines["sequence 0"].get_drawstyle() == "steps-post"


def test_every_mark_is_written_inside_the_picture_without_touching_another(drawn: list[Figure], tmp_path: Path) -> None:
    draw_depths(POINTS, MARKS, 2, tmp_path / "depths.png")
    boxes = {text.get_text(): text.get_window_extent() for text in drawn[0].axes[0].texts if text.get_text()}
    assert set(boxes) == {mark.label for mark in MARKS}
    drawn_boxes = list(boxes.values())
    for index, box in enumerate(drawn_boxes):
        assert box.x0 >= 0
        assert box.x1 <= drawn[0].bbox.x1
        assert box.y1 <= drawn[0].bbox.y1
        assert not any(box.overlaps(other) for other in drawn_boxes[index + 1 :])


def test_a_long_run_counts_in_minutes(drawn: list[Figure], tmp_path: Path) -> None:
    draw_depths([DepthPoint(240, 0, 0, 1)], [], 1, tmp_path / "depths.png")
    panel = drawn[0].axes[0]
    assert panel.get_xlabel() == "minutes since the start"
    assert numbers(panel.get_lines()[0].get_xdata())[1] == 4


def numbers(data: object) -> list[float]:
    return np.asarray(data, dtype=float).tolist()


def curves(panel: Axes) -> dict[object, list[float]]:
    return {line.get_label(): numbers(line.get_ydata()) for line in panel.get_lines()}


def test_losses_by_depth_and_by_moment(drawn: list[Figure], tmp_path: Path) -> None:
    served = [ServedLoss("base", 3.7, 3.6), ServedLoss("trained", 3.2, 2.7), ServedLoss("deleted", 3.3)]
    draw_losses([3.7, 3.5, 3.2], served, tmp_path / "losses.png")
    left, right = drawn[0].axes
    assert curves(left) == {"held-out records": [3.7, 3.5, 3.2]}
    assert curves(right) == {"held-out records": [3.7, 3.2, 3.3], "deleted person's records": [3.6, 2.7]}
    assert [label.get_text() for label in right.get_xticklabels()] == ["base", "trained", "deleted"]
    assert {text.get_text() for text in left.texts} == {"3.70", "3.50", "3.20"}


def test_losses_without_a_deleted_person_need_no_legend(drawn: list[Figure], tmp_path: Path) -> None:
    draw_losses([3.0, 3.0], [ServedLoss("base", 3.0)], tmp_path / "losses.png")
    assert drawn[0].axes[1].get_legend() is None
