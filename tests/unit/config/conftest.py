"""A small whole config as YAML, which each test bends."""

from __future__ import annotations

from pathlib import Path

import pytest

YAML = """\
name: test
shards: 2
slices: 3
budget: 2
model:
  path: some/base
data:
  path: records.jsonl
lora:
  layers_per_group: 2
storage:
  uri: run
"""


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid config file in the current folder, which is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    return path
