"""How many worker groups fit a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.errors import ClusterError
from s3t_ray.runtime.resources import bundles, group_count, standing_count
from tests.fakes import small_config


def test_auto_fills_the_cluster_up_to_one_group_a_sequence(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert group_count(config, {"CPU": 3.0}) == 3
    assert group_count(config, {"CPU": 64.0}) == 4  # 2 shards x 2 sequences


def test_a_group_of_several_ranks_needs_them_all(tmp_path: Path) -> None:
    config = small_config(tmp_path, engine={"ranks": 2}, workers={"gpus_per_rank": 1, "cpus_per_rank": 2})
    assert bundles(config) == [{"CPU": 2, "GPU": 1}] * 2
    assert group_count(config, {"CPU": 64.0, "GPU": 7.0}) == 3


@pytest.mark.parametrize("groups", ["auto", 3])
def test_what_can_never_fit_is_refused_with_the_figures(tmp_path: Path, groups: object) -> None:
    config = small_config(tmp_path, workers={"groups": groups, "gpus_per_rank": 8})
    with pytest.raises(ClusterError, match=r"'GPU': 8.*room for 0"):
        group_count(config, {"CPU": 64.0, "GPU": 4.0})


def test_a_scheduler_that_begins_after_nodes_were_lost_keeps_the_groups_asked_for(tmp_path: Path) -> None:
    one_node_left = {"CPU": 2.0, "GPU": 1.0}
    asked = small_config(tmp_path, workers={"groups": 2, "gpus_per_rank": 1})
    filling = small_config(tmp_path, workers={"groups": "auto", "gpus_per_rank": 1})
    assert standing_count(asked, one_node_left) == 2
    assert standing_count(filling, one_node_left) == 1
    assert standing_count(filling, {}) == 1
