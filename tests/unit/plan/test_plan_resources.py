"""How many worker groups fit a cluster, node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError, ConfigError
from s3t_ray.plan.resources import bundles, check_room, most_groups, room, shortage
from tests.fakes import small_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resources")


def of(folder: Path, ranks: int = 1, **workers: object) -> Config:
    return small_config(folder, engine={"ranks": ranks}, workers=workers)


def test_auto_fills_the_cluster_up_to_one_group_a_sequence(folder: Path) -> None:
    config = of(folder)
    assert room(config, [{"CPU": 1.0}, {"CPU": 2.0}]) == 3
    assert most_groups(config) == 4  # 2 shards x 2 sequences


def test_a_group_of_several_ranks_needs_them_all(folder: Path) -> None:
    config = of(folder, ranks=2, gpus_per_rank=1, cpus_per_rank=2)
    assert bundles(config) == [{"CPU": 2, "GPU": 1}] * 2
    assert room(config, [{"CPU": 64.0, "GPU": 7.0}]) == 3


def test_a_rank_does_not_span_nodes(folder: Path) -> None:
    config = of(folder, cpus_per_rank=2)
    assert room(config, [{"CPU": 3.0}, {"CPU": 3.0}]) == 2, "not 3: one core is left on each"
    with pytest.raises(ClusterError, match=r"at most .*'CPU': 1"):
        check_room(config, [{"CPU": 1.0}] * 8)


def test_a_group_spreads_over_nodes_unless_it_may_not(folder: Path) -> None:
    nodes = [{"CPU": 9.0, "GPU": 3.0}] * 2
    assert room(of(folder, ranks=2, gpus_per_rank=1, strategy="pack"), nodes) == 3
    assert room(of(folder, ranks=2, gpus_per_rank=1, strategy="strict_pack"), nodes) == 2


def test_of_several_kinds_of_gpu_only_the_one_asked_for_counts(folder: Path) -> None:
    nodes = [
        {"CPU": 8.0, "GPU": 8.0, "accelerator_type:A100": 1.0},
        {"CPU": 8.0, "GPU": 8.0, "accelerator_type:L4": 1.0},
    ]
    assert room(of(folder, gpus_per_rank=1), nodes) == 16
    chosen = of(folder, gpus_per_rank=1, accelerator="A100")
    assert room(chosen, nodes) == 8
    assert bundles(chosen)[0]["accelerator_type:A100"] < 0.01, "it marks the node, and does not use it up"
    with pytest.raises(ClusterError, match="accelerator_type:H100"):
        check_room(of(folder, gpus_per_rank=1, accelerator="H100"), nodes)


def test_no_more_gpus_than_the_run_may_have(folder: Path) -> None:
    nodes = [{"CPU": 8.0, "GPU": 8.0}] * 4
    assert room(of(folder, ranks=2, gpus_per_rank=1, max_gpus=7), nodes) == 3
    assert most_groups(of(folder, gpus_per_rank=1, max_gpus=3)) == 3


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ({"max_gpus": 4}, "gpus_per_rank is 0"),
        ({"accelerator": "A100"}, "gpus_per_rank is 0"),
        ({"ranks": 2, "gpus_per_rank": 1, "max_gpus": 1}, "at least 2"),
        ({"gpus_per_rank": 1, "groups": 4, "max_gpus": 3}, "at least 4"),
    ],
)
def test_a_limit_that_nothing_fits_under_is_refused(folder: Path, workers: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        of(folder, **workers)


@pytest.mark.parametrize("groups", ["auto", 3])
def test_what_can_never_fit_is_refused_with_the_figures(folder: Path, groups: object) -> None:
    with pytest.raises(ClusterError, match=r"'GPU': 4.*room for 0"):
        check_room(of(folder, groups=groups, ranks=8, gpus_per_rank=1), [{"CPU": 64.0, "GPU": 4.0}])


@given(
    st.lists(st.integers(0, 9), max_size=5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(["pack", "strict_pack"]),
)
def test_what_fits_can_be_placed(folder: Path, cpus: list[int], ranks: int, cpus_a_rank: int, strategy: str) -> None:
    """Against placing rank after rank where there is still room, the obvious way."""
    config = of(folder, ranks=ranks, cpus_per_rank=cpus_a_rank, strategy=strategy)
    left, placed = list(cpus), 0
    while True:
        spots = [node for node, free in enumerate(left) for _ in range(free // cpus_a_rank)]
        if strategy == "strict_pack":
            spots = next((own for node in range(len(left)) if len(own := [s for s in spots if s == node]) >= ranks), [])
        if len(spots) < ranks:
            break
        for node in spots[:ranks]:
            left[node] -= cpus_a_rank
        placed += 1
    assert room(config, [{"CPU": float(count)} for count in cpus]) == placed


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "none of the 0 nodes has CPU or GPU or accelerator_type:A100"),
        ([{"CPU": 8.0}], "none of the 1 nodes has GPU or accelerator_type:A100"),
        ([{"CPU": 8.0, "GPU": 8.0, "accelerator_type:H100": 1.0}], "none of the 1 nodes has accelerator_type:A100"),
        (
            [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 8.0, "accelerator_type:A100": 1.0}],
            "none of the 2 nodes has all of that",
        ),
        (
            [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 8.0, "accelerator_type:A100": 1.0}],
            "the 1 of 2 nodes that could hold it are in use",
        ),
    ],
)
def test_what_waits_says_what_it_waits_for(folder: Path, nodes: list[dict[str, float]], said: str) -> None:
    config = of(folder, ranks=2, gpus_per_rank=1, cpus_per_rank=4, accelerator="A100")
    assert shortage(config, nodes, 3) == (
        f"3 worker groups wait for 2 ranks of 4 CPU, 1 GPU on accelerator_type:A100: {said}"
    )
