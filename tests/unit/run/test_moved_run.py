"""A run whose folder was moved: its own config.yaml still names the old place, and is not believed."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from s3t_ray.config.load import load_config
from s3t_ray.config.location import locate
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from tests.fakes import Cluster, fake_base, small_config, write_records


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A settled run, and its keys beside it."""
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    return Path(cluster.run.location.storage_uri)


def moved(old: Path) -> Path:
    new = old.parent / "elsewhere" / "alpaca"
    new.parent.mkdir()
    shutil.move(old, new)
    return new


def keys_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.keys")


@pytest.mark.parametrize("name", ["", "config.yaml"])
def test_it_is_found_where_it_is_and_that_is_said(old: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    new = moved(old)
    shutil.move(keys_of(old), keys_of(new))
    with caplog.at_level(logging.WARNING), Run.open(new / name) as run:
        assert run.location.storage_uri == str(new)
        assert status(run).settled
        deletion.accept(run, ["r3"], [])
    assert f"the run is at {new}" in caplog.text and f"still names its old location {old}" in caplog.text
    assert not old.exists() and not keys_of(old).exists()


def test_training_with_its_own_config_continues_there_and_starts_nothing_at_the_old_place(old: Path) -> None:
    new = moved(old)
    shutil.move(keys_of(old), keys_of(new))
    config = load_config(new / "config.yaml")
    assert config.storage.uri == str(new)
    with Run.create(config) as run:
        assert status(run).settled
    assert not old.exists()
    assert f"uri: {new}" in (new / "config.yaml").read_text()


def test_keys_that_were_left_behind_are_found_and_that_is_said(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = keys_of(old)
    new = moved(old)
    old.mkdir()  # something else is there now
    with caplog.at_level(logging.WARNING), Run.open(new) as run:
        assert run.location.keys_dir == kept
        deletion.accept(run, ["r3"], [])
    assert f"keys are still in {kept}" in caplog.text


def test_another_name_of_the_same_folder_is_no_move(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = old.parent / "link"
    link.symlink_to(old)
    with caplog.at_level(logging.WARNING), Run.open(link) as run:
        assert run.location.storage_uri == str(link)
    assert "still names" not in caplog.text


def test_a_config_from_elsewhere_means_what_it_says(old: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine" / "config.yaml"
    mine.write_text((old / "config.yaml").read_text())
    assert locate(load_config(mine)).storage_uri == str(old)
    with Run.open(mine) as run:
        assert run.location.storage_uri == str(old)
    other = load_config(old / "config.yaml", [f"storage.uri={tmp_path}/other"])
    assert other.storage.uri == f"{tmp_path}/other"
