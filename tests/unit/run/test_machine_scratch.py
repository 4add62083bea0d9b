"""A folder on a machine's disk outlives its process when that is killed; the next of its kind erases it."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from s3t_ray.run.machine_scratch import machine_scratch
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.store.store import Store


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Id of a process that has ended; temporary folders are made in `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_dead_ranks_left_is_erased_and_nothing_else(tmp_path: Path, ended: int) -> None:
    here = socket.gethostname()
    dead, elsewhere = tmp_path / f"s3t-rank-{here}-{ended}-x", tmp_path / f"s3t-rank-other{here}-{ended}-x"
    for folder in (dead, elsewhere):
        folder.mkdir()
        (folder / "states").write_bytes(b"personal")
    mine = machine_scratch("rank")
    assert not dead.exists() and elsewhere.exists()
    second = machine_scratch("rank")
    assert Path(mine.name).is_dir() and Path(second.name).is_dir(), "the folders of a living process stay"
    mine.cleanup()
    second.cleanup()


class Bucket:
    """A run whose storage is not on this machine."""

    class store(Store):
        @staticmethod
        def local_path(path: str) -> None:
            return None


def test_what_a_killed_command_on_a_run_in_a_bucket_left_is_erased_by_the_next(tmp_path: Path, ended: int) -> None:
    dead = tmp_path / f"s3t-run-{socket.gethostname()}-{ended}-x"
    dead.mkdir()
    (dead / "slices").write_bytes(b"all the data, read in by half")
    bucket: Run = Bucket()  # type: ignore[assignment]
    with scratch_folder(bucket, "ingest") as mine:
        assert mine.is_dir() and not dead.exists()
    assert list(tmp_path.iterdir()) == []
