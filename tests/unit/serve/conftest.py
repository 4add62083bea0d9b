"""The HTTP service with a backend without a model."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.http import make_app
from tests.fakes.serving import FakeBackend
from tests.unit.serve.asking import ASK, ERASE


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def client(backend: FakeBackend) -> TestClient:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    return TestClient(make_app(backend, tokens), raise_server_exceptions=False)
