"""`s3t train --address` on a cluster whose GPUs are too small for the run: refused before a record is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.fakes import write_records
from tests.tiny import tiny_llama

SIZE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 * 1024 * 1024}


@pytest.fixture
def small_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Logical GPUs on nodes whose nvidia-smi shows 1 GiB."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "NVIDIA Small, 1024"\n')
    script.chmod(0o755)
    # The environment of this process is that of the raylets.
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    cluster = Cluster(initialize_head=True, head_node_args={**SIZE, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_it_says_what_is_needed_and_what_is_there(small_gpus: Cluster, tmp_path: Path) -> None:
    tiny_llama(tmp_path / "base", layers=4, hidden=32)
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(8)])
    document = {
        "name": "small",
        "shards": 1,
        "slices": 2,
        "budget": 1,
        "model": {"path": str(tmp_path / "base")},
        "data": {"path": str(tmp_path / "data.jsonl"), "partition_key": "seed"},
        "lora": {"layers_per_group": 2, "rank": 4},
        "workers": {"gpus_per_rank": 1},
        "storage": {"uri": str(tmp_path / "run")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "s3t_ray.cli.main", "train", str(tmp_path / "config.yaml")]
    done = subprocess.run([*command, "--address", small_gpus.address], capture_output=True, text=True)
    said = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert "NVIDIA Small has 1.0 GiB" in said, done.stderr
    assert "use larger GPUs" in said
    assert not (tmp_path / "run").exists()
