"""No weights under a wrong name: a stage's recipe is what this config and this version train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_ray.config import recipe as recipes
from s3t_ray.config.load import dump_config
from s3t_ray.errors import ConfigError, TrainError
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.runtime.rank import Rank
from s3t_ray.scheduler.requeue import check_recipe_of, stage_job
from s3t_ray.train.job import StageJob
from tests.fakes import Cluster, fake_base, small_config, write_records


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(12)])
    cluster = Cluster(small_config(tmp_path))
    with cluster.run as opened:
        yield opened


def job_of(run: Run) -> StageJob:
    view = view_shard(run, 0)
    return stage_job(run, view, next(iter(view.plan.stages.values())))


def test_a_run_trains_under_its_own_config(run: Run) -> None:
    check_recipe_of(job_of(run), run.config)
    run.check_recipe()


def test_an_edited_config_trains_nothing(run: Run) -> None:
    optimizer = run.config.optimizer.model_copy(update={"lr": 0.5})
    edited = dump_config(run.config.model_copy(update={"optimizer": optimizer}))
    rank = Rank(edited, str(run.base), run.location.storage_uri, 0, 1)
    with pytest.raises(TrainError, match="is named by recipe"):
        rank.train(job_of(run))


def test_another_recipe_format_trains_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(run)
    before = recipes.RECIPE_FORMAT
    monkeypatch.setattr(recipes, "RECIPE_FORMAT", before + 1)
    with pytest.raises(TrainError, match="is named by recipe"):
        check_recipe_of(job, run.config)
    with pytest.raises(ConfigError, match=f"format: {before} -> {before + 1}") as refused:
        run.check_recipe()
    assert "version of s3t_ray" in refused.value.fix
