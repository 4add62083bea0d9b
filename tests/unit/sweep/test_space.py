"""Points of a sweep: every combination once, values as YAML reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.errors import ConfigError
from s3t_ray.sweep.space import grid, points_from


def test_a_grid_is_every_combination_the_last_field_fastest() -> None:
    points = grid(["budget=[1, 2]", "order.kind=[cyclic, chains]", "lora.targets=[[q_proj, v_proj]]"])
    assert [point.overrides for point in points] == [
        (f"budget={budget}", f"order.kind={kind}", "lora.targets=[q_proj, v_proj]")
        for budget in (1, 2)
        for kind in ("cyclic", "chains")
    ]
    assert points[0].label == "budget 1, order.kind cyclic, lora.targets [q_proj, v_proj]"
    assert grid([])[0].label == "as it is"


@pytest.mark.parametrize("text", ["budget", "budget=4", "budget=[]", "=[1]", "budget=[1", "budget={a: 1}"])
def test_what_is_no_list_of_values_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a list of values"):
        grid([text])


def test_a_field_stands_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        grid(["budget=[1]", "budget=[2]"])


def test_points_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text("- {budget: 4, optimizer.lr: 1.0e-3}\n- {order.kind: chains, seed: 7}\n- {data.id_field: null}\n")
    assert [point.overrides for point in points_from(path)] == [
        ("budget=4", "optimizer.lr=0.001"),
        ("order.kind=chains", "seed=7"),
        ("data.id_field=null",),
    ]
    for text, words in (("budget: 4\n", "no list of points"), ("[1]\n", "no list of points"), ("- [", "not YAML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            points_from(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        points_from(tmp_path / "nothing.yaml")
