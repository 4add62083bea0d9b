"""A rank's temporary folder outlives the rank when it is killed; the next rank on the machine erases it."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from s3t_ray.runtime.rank_scratch import own_scratch


def test_what_dead_ranks_left_is_erased_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    dead, elsewhere = tmp_path / f"s3t-rank-{here}-{ended.pid}-x", tmp_path / f"s3t-rank-other{here}-{ended.pid}-x"
    for folder in (dead, elsewhere):
        folder.mkdir()
        (folder / "states").write_bytes(b"personal")
    mine = own_scratch()
    assert not dead.exists() and elsewhere.exists()
    second = own_scratch()
    assert Path(mine.name).is_dir() and Path(second.name).is_dir(), "the folders of a living process stay"
    mine.cleanup()
    second.cleanup()
