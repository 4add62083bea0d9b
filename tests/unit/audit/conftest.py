"""A run with a history, which the tests of `audit` tamper with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_ray.audit.leftovers import ACCEPTANCE_SECONDS
from s3t_ray.ledger.values import StageState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from tests.fakes import Cluster, fake_base, small_config, write_records

PEOPLE = [(f"r{number}", f"p{number % 7}") for number in range(30)]


@pytest.fixture(scope="module")
def lived_origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has restored two deletions; a copy of a stage that the second purged lies beside it."""
    folder = tmp_path_factory.mktemp("origin")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", PEOPLE)
    cluster = Cluster(small_config(folder))
    cluster.settle()
    for number in (3, 18):
        doomed = deletion.preview(cluster.run, [f"r{number}"], []).shards[0]
        before = {stage.id: stage for stage in cluster.run.ledger.stages(doomed.shard, StageState.LIVE)}
        shutil.copytree(folder / "run" / "stages", folder / "old", dirs_exist_ok=True)
        receipt = deletion.accept(cluster.run, [f"r{number}"], [])
        assert before.keys() & set(receipt.stages_pruned)
        cluster.settle()
    cluster.run.close()
    return folder


@pytest.fixture
def lived(lived_origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A copy of that run, to tamper with."""
    monkeypatch.setattr("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0)
    assert ACCEPTANCE_SECONDS > 0
    shutil.copytree(lived_origin / "run", tmp_path / "run")
    shutil.copytree(lived_origin / "run.keys", tmp_path / "run.keys")
    with Run.open(tmp_path / "run", read_only=True) as opened:
        yield opened
