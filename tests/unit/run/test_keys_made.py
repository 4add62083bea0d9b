"""Making a run's keys is said once, with where, and not done where they would be gone before the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.config import memory_folders
from s3t_ray.errors import ConfigError
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from tests.fakes import fake_base, small_config, write_records


def begun(folder: Path) -> Run:
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    return Run.create(small_config(folder))


def test_it_is_said_where_and_that_they_must_be_backed_up(tmp_path: Path) -> None:
    said: list[str] = []
    with begun(tmp_path) as run:
        ingest(run, said.append)
        assert [line for line in said if str(run.location.keys_dir) in line and "back them up" in line]
        said.clear()
        ingest(run, said.append)
        assert not said


def test_keys_in_memory_are_refused_and_none_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun(tmp_path) as run:
        keys = run.location.keys_dir
        table = tmp_path / "mountinfo"
        table.write_text(f"1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {keys} rw - tmpfs tmpfs rw\n")
        monkeypatch.setattr(memory_folders, "MOUNTS", table)
        with pytest.raises(ConfigError, match="in memory"):
            ingest(run, lambda line: None)
        assert not keys.exists() and run.ledger.run() is None
