"""Trials share a run exactly if neither would rename or purge a stage of the other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.plan.orders import orders
from s3t_ray.sweep.space import Point, grid
from s3t_ray.sweep.trials import Trial, arrange
from tests.fakes import small_config


@pytest.fixture
def base(tmp_path: Path) -> Config:
    return small_config(tmp_path)


def arranged(base: Config, tmp_path: Path, *vary: str) -> tuple[Trial, ...]:
    return arrange(base, grid(vary), tmp_path / "sweep", "digest")


def test_budgets_share_a_run_the_smallest_first(base: Config, tmp_path: Path) -> None:
    trials = arranged(base, tmp_path, "budget=[3, 1, 2]")
    assert [trial.config.budget for trial in trials] == [1, 2, 3]
    assert len({trial.root for trial in trials}) == len({trial.config.storage.uri for trial in trials}) == 1
    for smaller, larger in pairwise(trials):
        assert set(orders(smaller.config, 0)) < set(orders(larger.config, 0)), "no later trial purges a stage"


@pytest.mark.parametrize(
    "vary",
    ["lora.rank=[4, 8]", "shards=[2, 3]", "seed=[0, 1]", "order.kind=[cyclic, chains]", "optimizer.epochs=[1, 2]"],
)
def test_what_names_stages_or_would_purge_them_has_a_run_of_its_own(base: Config, tmp_path: Path, vary: str) -> None:
    one, other = arranged(base, tmp_path, vary)
    assert one.root != other.root and one.config.storage.uri != other.config.storage.uri


@pytest.mark.parametrize("vary", ["workers.groups=[1, 2]", "requeue.policy=[eager, lazy]"])
def test_what_decides_neither_shares(base: Config, tmp_path: Path, vary: str) -> None:
    one, other = arranged(base, tmp_path, vary)
    assert one.root == other.root and one.config != other.config


def test_runs_follow_each_other_whole(base: Config, tmp_path: Path) -> None:
    trials = arranged(base, tmp_path, "budget=[2, 1]", "lora.rank=[8, 4]")
    assert [(trial.config.lora.rank, trial.config.budget) for trial in trials] == [(8, 1), (8, 2), (4, 1), (4, 2)]


def test_another_base_model_is_another_run(base: Config, tmp_path: Path) -> None:
    (one,) = arrange(base, [Point(())], tmp_path, "digest")
    (other,) = arrange(base, [Point(())], tmp_path, "another")
    assert one.root != other.root


def test_the_run_lies_in_the_sweeps_folder_whatever_the_config_says(base: Config, tmp_path: Path) -> None:
    (trial,) = arranged(base, tmp_path)
    assert Path(trial.config.storage.uri) == tmp_path / "sweep" / trial.root
    assert trial.config.ledger.url is None and trial.config.keys.dir is not None


@pytest.mark.parametrize("vary", ["storage.uri=[x]", "data.path=[x]", "ledger.url=[x]", "name=[a]", "model.path=[x]"])
def test_where_things_are_cannot_vary(base: Config, tmp_path: Path, vary: str) -> None:
    with pytest.raises(ConfigError, match="cannot vary"):
        arranged(base, tmp_path, vary)


@pytest.mark.parametrize("vary", ["budget=[0]", "lora.rnk=[4]", "slices=[4000]", "budget.x=[1]"])
def test_an_impossible_point_is_refused_by_its_name(base: Config, tmp_path: Path, vary: str) -> None:
    with pytest.raises(ConfigError, match=vary.partition("=")[0]):
        arranged(base, tmp_path, vary)
