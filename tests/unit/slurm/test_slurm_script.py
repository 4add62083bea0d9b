"""`cluster/slurm.sh`, run whole with stand-ins for `srun`, `scontrol` and `ray`: cores, ports, folders, ends."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.slurm.slurm_stand_ins import SlurmJob

SCRIPT = Path(__file__).parents[3] / "cluster" / "slurm.sh"

TRAIN = """
import os, sys, tempfile
print("trains", sys.argv[1], os.environ["RAY_ADDRESS"], tempfile.gettempdir())
sys.exit({code})
"""

MEET = """
import os, threading
from pathlib import Path
mine, other = Path({folder!r}, os.environ["SLURM_JOB_ID"]), Path({folder!r}, {other!r})
mine.touch()
while not other.exists():
    threading.Event().wait(0.05)
"""

WAITS = """
import signal, sys
def stop(number, frame):
    print("stopped in good order", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open({path!r}, "w").close()
signal.pause()
"""


def records(job: SlurmJob) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in job.nodes.glob("*.json")}


def test_every_node_has_the_cores_of_the_job_and_a_folder_of_its_own(tmp_path: Path) -> None:
    job = SlurmJob(SCRIPT, tmp_path, 77, ("n1", "n2", "n3"), TRAIN.format(code=0))
    code, output = job.end()
    assert code == 0, output
    assert f"trains run.yaml n1:20616 {tmp_path}/s3t-scratch-77" in output
    nodes = records(job)
    assert nodes.keys() == {"n1", "n2", "n3"}
    assert {node["cores"] for node in nodes.values()} == {16}, "srun of 22.05 gives one core unless it is told"
    assert {node["options"]["--num-cpus"] for node in nodes.values()} == {"16"}
    assert {node["options"]["--num-gpus"] for node in nodes.values()} == {"4"}
    assert [name for name, node in nodes.items() if "--head" in node["options"]] == ["n1"]
    assert {node["options"].get("--address") for node in nodes.values()} == {None, "n1:20616"}
    assert len({node["token"] for node in nodes.values()}) == 1
    folders = [Path(node[field]) for node in nodes.values() for field in ("tmpdir", "ray_folder")]
    assert len(set(folders)) == 6
    assert [folder for folder in folders if folder.exists()] == [], "what lay on a node's disk held records"


def test_two_jobs_share_a_node(tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    jobs = [
        SlurmJob(SCRIPT, tmp_path, number, ("n1",), MEET.format(folder=str(meeting), other=str(other)))
        for number, other in ((4001, 4002), (4002, 4001))
    ]
    for job in jobs:
        code, output = job.end()
        assert code == 0, output
    first, second = (records(job)["n1"] for job in jobs)
    for field in ("tmpdir", "token", "ray_folder"):
        assert first[field] != second[field]
    fixed = [
        {value for name, value in node["options"].items() if name.endswith("port") and value != "0"}
        for node in (first, second)
    ]
    assert len(fixed[0]) == len(fixed[1]) == 4 and fixed[0].isdisjoint(fixed[1])


def test_no_port_is_in_the_range_of_outgoing_connections_and_no_socket_path_is_too_long(tmp_path: Path) -> None:
    job = SlurmJob(SCRIPT, tmp_path, 98_765_499, ("n1",), TRAIN.format(code=0))
    code, output = job.end()
    assert code == 0, output
    options = records(job)["n1"]["options"]
    assert all(int(value) < 32_768 for name, value in options.items() if name.endswith("port"))
    name = "session_2026-11-27_01-31-05_123456_1234567/sockets/plasma_store.12"
    assert len(f"{options['--temp-dir']}/{name}") <= 107
    assert options["--temp-dir"].startswith("/tmp/")


@pytest.mark.parametrize("code", [0, 7])
def test_the_job_ends_as_the_training_does(tmp_path: Path, code: int) -> None:
    ended, output = SlurmJob(SCRIPT, tmp_path, 5, ("n1", "n2"), TRAIN.format(code=code)).end()
    assert ended == code, output


def test_before_its_time_is_over_the_training_ends_in_good_order(tmp_path: Path) -> None:
    up = tmp_path / "up"
    job = SlurmJob(SCRIPT, tmp_path, 6, ("n1", "n2"), WAITS.format(path=str(up)))
    while not up.exists() and job.process.poll() is None:
        threading.Event().wait(0.05)
    job.process.send_signal(signal.SIGTERM)  # --signal=B:TERM reaches the batch shell alone
    code, output = job.end()
    assert (code, "stopped in good order" in output) == (143, True), output


def test_a_node_that_cannot_start_ends_the_job(tmp_path: Path) -> None:
    job = SlurmJob(SCRIPT, tmp_path, 8, ("n1", "n2"), TRAIN.format(code=0), broken="n2")
    code, output = job.end()
    assert code != 0 and "trains" not in output, output
    assert "n2 is broken" in output
