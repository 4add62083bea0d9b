"""`s3t train` on a cluster without a GPU node, and with an autoscaler that starts real raylets as nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from s3t_ray.audit.verify import verify
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from tests.cluster.raylets import Raylets, descendants, wait_for
from tests.fakes import write_records
from tests.tiny import tiny_llama

S3T = (sys.executable, "-m", "s3t_ray.cli.main")
MOST_NODES = 3
IDLE_MINUTES = 0.2
SECOND_AUTOSCALER = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}
"""The one that KubeRay's files name. (The first may start a node too many for a moment, and ends it.)"""


class Autoscaled(Raylets):
    """A head without a GPU, whose autoscaler starts up to three nodes with one logical GPU on request."""

    def __init__(self) -> None:
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "DS_ACCELERATOR": "cpu"}
        super().__init__({**fake, **SECOND_AUTOSCALER})

    def start(self, raylets: int = 1) -> None:
        config = self.folder / "autoscaler.json"
        config.write_text(json.dumps(self._config()))
        self._wait_until_up(
            self._start(
                "--head",
                f"--port={self.port}",
                "--num-gpus=0",
                "--include-dashboard=false",
                f"--autoscaling-config={config}",
            )
        )

    def nodes(self) -> list[int]:
        """Raylet processes other than the head's."""
        (head,) = self.processes
        # The head starts its own itself; those of the nodes are children of its autoscaler.
        return [pid for pid in descendants(head.pid) if _program(pid) == "raylet" and _parent(pid) != head.pid]

    def _config(self) -> dict[str, object]:
        memory = 100 * 1024 * 1024
        return {
            "cluster_name": "fake",
            "max_workers": MOST_NODES,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": IDLE_MINUTES,
            "provider": {
                "type": "external",  # "fake_multinode" needs a file that Ray's wheels lack
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "gcs_address": self.address,
                "launch_multiple": True,
                "head_node_id": FAKE_HEAD_NODE_ID,
            },
            "auth": {},
            "docker": {},
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
                "gpu": {
                    "resources": {"CPU": 2, "GPU": 1, "object_store_memory": memory},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": MOST_NODES,
                },
            },
            "head_node_type": "ray.head.default",
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            "initialization_commands": [],
            "setup_commands": [],
            "head_setup_commands": [],
            "worker_setup_commands": [],
            "head_start_ray_commands": [],
            "worker_start_ray_commands": [],
        }


def _program(pid: int) -> str:
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()).name
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_nodes_come_when_there_is_something_to_train_and_go_after_it(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "base", layers=4, hidden=32)
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(48)])
    document = {
        "name": "autoscaled",
        "shards": 2,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(tmp_path / "base")},
        "data": {"path": str(tmp_path / "data.jsonl"), "partition_key": "seed"},
        "lora": {"layers_per_group": 2, "rank": 4},
        "optimizer": {"epochs": 30, "lr": 0.01, "batch_records": 4},
        "workers": {"groups": "auto", "gpus_per_rank": 1, "autoscale_to": 2},
        "storage": {"uri": str(tmp_path / "run")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    with Autoscaled() as cluster:
        cluster.start()
        assert cluster.nodes() == []
        driver = subprocess.Popen(
            [*S3T, "train", tmp_path / "config.yaml", "--json", "--address", cluster.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **{k: v for k, v in cluster.environment.items() if k.startswith("RAY_AUTH")}},
        )
        most: list[int] = []

        def nodes(count: int) -> bool:
            most.append(len(cluster.nodes()))
            assert cluster.processes[0].poll() is None, (cluster.folder / "start-0.log").read_text()
            assert driver.poll() is None, driver.communicate()[1]
            return most[-1] == count

        wait_for("two nodes", lambda: nodes(2))
        with Run.open(tmp_path / "run") as run:

            def both() -> bool:
                nodes(2)
                return {note.stage.group for note in run.ledger.running()} == {0, 1}

            wait_for("a stage on each", both)
            lost = cluster.nodes()[0]
            for pid in (lost, *descendants(lost)):  # as a power cut would
                os.kill(pid, signal.SIGKILL)
            wait_for("another node in its place", lambda: lost not in cluster.nodes() and nodes(2))
        printed, log = driver.communicate(timeout=300)
        assert driver.returncode == 0, log
        assert json.loads(printed)["status"]["settled"]
        assert max(most) == 2, "eight stages could use more nodes than the run may ask for"
        wait_for("the end of the nodes", lambda: cluster.nodes() == [])
    with Run.open(tmp_path / "run") as run:
        assert [shard.depths for shard in status(run).shards] == [(2, 2), (2, 2)]
        assert verify(run).problems == ()
