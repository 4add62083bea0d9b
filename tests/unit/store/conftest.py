"""Stores of both kinds: a local folder, and pyarrow's in-memory filesystem behind the remote code."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.store import Store


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "run") if request.param == "local" else "mock:///bucket/run")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "run"))
