"""Which stages a replay chooses, and how far two adapters are apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from s3t_ray.audit.replay import choose_stages, compared, largest_difference
from s3t_ray.errors import StageDamaged
from s3t_ray.run.reports import Verdict
from s3t_ray.run.shard_view import view_shard
from s3t_ray.store import layout
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.store import Store
from tests.fakes import Cluster, fake_base, small_config, write_records


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    folder = tmp_path_factory.mktemp("replay")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(12)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    return cluster


@pytest.fixture(scope="module")
def views(cluster: Cluster) -> dict[Any, Any]:
    return {shard: view_shard(cluster.run, shard) for shard in range(2)}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 40])
def test_whole_chains_of_as_many_stages_as_asked(views: dict[Any, Any], count: int) -> None:
    for seed in range(20):
        chosen = choose_stages(views, count, seed)
        names = [stage.id for stage in chosen]
        assert len(names) == len(set(names)) == min(count, 12)
        for stage in chosen:
            assert all(parent in names[: names.index(stage.id)] for parent in stage.ancestors)


def test_deep_stages_are_preferred_and_seeds_choose_differently(views: dict[Any, Any]) -> None:
    assert all(max(stage.depth for stage in choose_stages(views, 3, seed)) == 3 for seed in range(20))
    assert len({choose_stages(views, 3, seed) for seed in range(20)}) > 1


def test_a_stage_that_is_damaged_differs_and_does_not_end_the_replay(cluster: Cluster, tmp_path: Path) -> None:
    stage = next(iter(view_shard(cluster.run, 0).plan.stages.values()))
    shutil.copytree(Path(cluster.run.location.storage_uri, "stages"), tmp_path / "again" / "stages")
    again = Store.open(str(tmp_path / "again"))
    assert compared(cluster.run, again, stage).verdict is Verdict.EQUAL
    folder = Path(cluster.run.location.storage_uri, layout.stage_folder(stage.id))
    for name in (ADAPTER_FILE, layout.MANIFEST):
        (folder / name).rename(tmp_path / name)
        found = compared(cluster.run, again, stage)
        assert (found.verdict, found.largest_difference) == (Verdict.DIFFERS, float("inf"))
        (tmp_path / name).rename(folder / name)
    (tmp_path / "again" / layout.stage_folder(stage.id) / ADAPTER_FILE).unlink()
    with pytest.raises(StageDamaged):  # what was just trained is no finding about the run
        compared(cluster.run, again, stage)


def edited(root: Path, stage: str) -> None:
    """Other bytes of its adapter."""
    other = save({"x": np.array([[9.0]], np.float32)})
    (root / layout.stage_folder(stage) / ADAPTER_FILE).write_bytes(other)


def test_a_stage_on_top_of_one_of_other_hardware_is_not_proved(cluster: Cluster, tmp_path: Path) -> None:
    """A run that was moved heals on top of stages of its former hardware; their replay gives it another parent."""
    plan = view_shard(cluster.run, 0).plan.stages
    stage = next(each for each in plan.values() if each.depth == 2)
    assert stage.parent is not None
    shutil.copytree(Path(cluster.run.location.storage_uri, "stages"), tmp_path / "again" / "stages")
    again = Store.open(str(tmp_path / "again"))
    edited(tmp_path / "again", stage.id)
    assert compared(cluster.run, again, stage).verdict is Verdict.DIFFERS
    here, there = (
        Path(root, layout.stage_folder(stage.parent), layout.MANIFEST)
        for root in (tmp_path / "again", cluster.run.location.storage_uri)
    )
    kept = there.read_text()
    there.write_text(json.dumps(json.loads(kept) | {"versions": {"torch": "2.12.0"}}))
    here.write_text(json.dumps(json.loads(kept) | {"versions": {"torch": "2.13.0"}}))
    assert compared(cluster.run, again, stage).verdict is Verdict.DIFFERS, "a parent of the same bytes excuses nothing"
    edited(tmp_path / "again", stage.parent)
    found = compared(cluster.run, again, stage)
    assert found.verdict is Verdict.NOT_PROVED
    assert found.mismatches == (f"stage {stage.parent[:12]} below it: torch 2.12.0, here 2.13.0",)
    assert compared(cluster.run, again, plan[stage.parent]).verdict is Verdict.NOT_PROVED
    there.write_text(kept)


def test_the_distance_of_adapters_with_arbitrary_content() -> None:
    again = save({"x": np.array([[1.0, 2.0]], np.float32)})
    assert largest_difference([again, again]) == 0.0
    assert largest_difference([save({"x": np.array([[1.0, 2.5]], np.float32)}), again]) == 0.5
    for other in (
        b"",
        b"junk",
        again[:20],
        save({"y": np.array([[1.0, 2.0]], np.float32)}),
        save({"x": np.array([[1.0, 2.0]] * 2, np.float32)}),  # numpy would stretch the one to the other
        save({"x": np.array([[1.0, 2.0, 3.0]], np.float32)}),
    ):
        assert largest_difference([other, again]) == float("inf")
