"""The HTTP service with a backend without a model, and a small run, trained, under a played cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.http import make_app
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.serving import FakeBackend
from tests.unit.serve.asking import ASK, ERASE


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def client(backend: FakeBackend) -> TestClient:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    return TestClient(make_app(backend, tokens), raise_server_exceptions=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", f"p{number % 5}") for number in range(20)])
    made = Cluster(small_config(tmp_path))
    made.settle()
    yield made
    made.run.close()
