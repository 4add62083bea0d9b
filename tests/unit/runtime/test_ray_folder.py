"""A long TMPDIR does not keep Ray from starting: its sockets go elsewhere."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from s3t_ray.errors import ClusterError
from s3t_ray.runtime.connect import LONGEST_RAY_FOLDER, ray_folder

LONG = "/scratch/" + "x" * 81
SOCKET = "ray/session_2026-11-27_01-31-05_123456_4194304/sockets/plasma_store.10"


def test_a_long_tmpdir_is_left_to_scratch() -> None:
    assert len(LONG) == 90
    assert ray_folder({"TMPDIR": LONG}) == "/tmp"
    assert ray_folder({"TMPDIR": "/scratch"}) is None
    assert ray_folder({"TMPDIR": LONG, "RAY_TMPDIR": "/var/ray"}) is None
    assert ray_folder({}) is None


def test_what_somebody_chose_for_ray_is_not_overruled_but_named() -> None:
    with pytest.raises(ClusterError, match=f"RAY_TMPDIR = {LONG} has 90 bytes"):
        ray_folder({"RAY_TMPDIR": LONG})


def test_the_limit_is_that_of_the_system() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for length, fits in ((LONGEST_RAY_FOLDER, True), (LONGEST_RAY_FOLDER + 1, False)):
            folder = Path(short, "x" * (length - len(os.fsencode(short)) - 1))
            path = folder / SOCKET
            path.parent.mkdir(parents=True)
            with socket.socket(socket.AF_UNIX) as probe:
                if fits:
                    probe.bind(str(path))
                else:
                    with pytest.raises(OSError, match="path too long"):
                        probe.bind(str(path))
