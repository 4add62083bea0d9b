"""`s3t train --address` on a cluster that a node joins and leaves during the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray.cluster_utils import Cluster

from s3t_ray.audit.verify import verify
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from tests.cluster.raylets import wait_for
from tests.fakes import write_records
from tests.tiny import tiny_llama

SIZE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 * 1024 * 1024}
S3T = (sys.executable, "-m", "s3t_ray.cli.main")


@pytest.fixture
def raylets() -> Iterator[Cluster]:
    # The environment of this process, token and DS_ACCELERATOR included, is that of the raylets.
    before = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"  # the GPUs are logical
    cluster = Cluster(initialize_head=True, head_node_args={**SIZE, "include_dashboard": False})
    yield cluster
    cluster.shutdown()
    if before is None:
        del os.environ["DS_ACCELERATOR"]
    else:
        os.environ["DS_ACCELERATOR"] = before


def test_a_node_that_joins_is_used_and_one_that_is_lost_does_not_end_the_run(raylets: Cluster, tmp_path: Path) -> None:
    tiny_llama(tmp_path / "base", layers=4, hidden=32)
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(48)])
    document = {
        "name": "two",
        "shards": 2,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(tmp_path / "base")},
        "data": {"path": str(tmp_path / "data.jsonl"), "partition_key": "seed"},
        "lora": {"layers_per_group": 2, "rank": 4},
        "optimizer": {"epochs": 30, "lr": 0.01, "batch_records": 4},
        "workers": {"groups": "auto", "gpus_per_rank": 1},
        "storage": {"uri": str(tmp_path / "run")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    driver = subprocess.Popen(
        [*S3T, "train", tmp_path / "config.yaml", "--json", "--address", raylets.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def ledger() -> Ledger | None:
        """After the scheduler has started and counted its groups."""
        assert driver.poll() is None, driver.communicate()[1]
        if (tmp_path / "run" / "config.yaml").is_file():
            found = Run.open(tmp_path / "run").ledger
            if "scheduler" in found.lease().holder:
                return found
            found.close()
        return None

    with wait_for("the scheduler", ledger) as seen:
        second = raylets.add_node(**SIZE)

        def both() -> bool:
            assert driver.poll() is None, driver.communicate()[1]
            return {note.stage.group for note in seen.running()} == {0, 1}

        wait_for("a stage on each node", both)
        raylets.remove_node(second, allow_graceful=False)
    printed, log = driver.communicate(timeout=300)
    assert driver.returncode == 0, log
    assert json.loads(printed)["status"]["settled"]
    with Run.open(tmp_path / "run") as run:
        assert [shard.depths for shard in status(run).shards] == [(2, 2), (2, 2)]
        assert verify(run).problems == ()
