"""The fake runtime, as a fixture."""

from __future__ import annotations

import pytest

from tests.fakes.command_line import FakeRuntime


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    monkeypatch.setenv("COLUMNS", "140")
    return FakeRuntime(monkeypatch)
