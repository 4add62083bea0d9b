"""Healing and serving detect a replaced base, even one of the same shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from s3t_ray.audit.verify import verify
from s3t_ray.cli.main import app
from s3t_ray.ensemble.in_process import generate
from s3t_ray.errors import ConfigError, TrainError
from s3t_ray.run.run import Run
from s3t_ray.runtime.rank import Rank
from s3t_ray.train.job import StageJob
from tests.fakes import Cluster, fake_base, small_config, write_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{at}", None) for at in range(12)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    return tmp_path


def replace_base(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    weights = load_file(path)
    save_file({name: each + np.float32(1) for name, each in weights.items()}, path)


def test_the_base_of_a_run_is_its_own_or_refused(folder: Path) -> None:
    with Run.open(folder / "run") as run:
        assert run.base == folder / "base"
    replace_base(folder)
    with Run.open(folder / "run") as run:
        with pytest.raises(ConfigError, match="is not the one that run 'test' was trained on") as caught:
            _ = run.base
        assert "restore the original weights" in caught.value.fix
        with pytest.raises(ConfigError, match="is not the one"):
            generate(run, "hello")
        problems = verify(run).problems
        assert any("is not the one that this run was trained on" in problem for problem in problems)


def test_serve_refuses_it_before_ray_starts(folder: Path) -> None:
    replace_base(folder)
    refused = CliRunner().invoke(app, ["serve", str(folder / "run")])
    assert refused.exit_code == 2 and "is not the one that run 'test' was trained on" in refused.stderr


def test_a_rank_refuses_a_job_of_another_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path can hold another model on another node."""
    with Run.open(folder / "run") as run:
        job = StageJob("s", run.row.recipe_digest, run.row.base_digest, 0, (), (), "00")
        rank = Rank("".join(run.store.read_bytes("config.yaml").decode()), str(folder / "base"), str(folder), 0, 1)
    monkeypatch.setattr(rank, "_trainer", object())
    monkeypatch.setattr(rank, "_base_digest", "0" * 64)
    monkeypatch.setattr("s3t_ray.runtime.rank.check_recipe_of", lambda job, config: None)
    with pytest.raises(TrainError, match="is not the one that this run was trained"):
        rank.train(job)
