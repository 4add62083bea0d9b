"""How many runs of a sweep go at once: only what the cluster holds together."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.sweep.tuning import side_by_side
from tests.fakes import small_config


@pytest.mark.parametrize(
    ("groups", "nodes", "found"),
    [
        ([1, 1, 1], [{"CPU": 2.0}], 2),
        ([1, 1, 1], [{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}], 3),
        (["auto", "auto"], [{"CPU": 8.0}], 2),
        ([3, 1, 1], [{"CPU": 4.0}], 2),
        ([4, 1, 1], [{"CPU": 4.0}], 1),
        ([1, 1], [], 1),
        ([1], [{"CPU": 64.0}], 1),
    ],
)
def test_whichever_they_are_they_fit(
    tmp_path: Path, groups: list[int | str], nodes: list[dict[str, float]], found: int
) -> None:
    assert side_by_side([small_config(tmp_path, workers={"groups": each}) for each in groups], nodes) == found


def test_where_nodes_are_asked_for_one_run_asks_at_a_time(tmp_path: Path) -> None:
    configs = [small_config(tmp_path, workers={"autoscale_to": 2})] * 2
    assert side_by_side(configs, [{"CPU": 64.0}]) == 1


def test_a_limit_of_each_run_is_none_of_the_cluster(tmp_path: Path) -> None:
    node = {"CPU": 8.0, "GPU": 3.0}
    configs = [small_config(tmp_path, workers={"groups": "auto", "gpus_per_rank": 1, "max_gpus": 1})] * 4
    assert side_by_side(configs, [node]) == 3
