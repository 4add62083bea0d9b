"""Stand-ins for Slurm's commands and for Ray, to run `cluster/slurm.sh` on a machine that has neither.

`srun` behaves as that of 22.05 and newer: a step has the cores that `--cpus-per-task` or SRUN_CPUS_PER_TASK gives
it, else one, whatever the job has. `ray start` listens on the ports that it is given, so that two jobs that choose
the same one fail as they would with Ray.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SCONTROL = """#!/bin/bash
[[ $1 == show && $2 == hostnames ]] && tr , '\\n' <<<"$3"
"""

SRUN = """#!/bin/bash
set -euo pipefail
set -m # each task is a process group: as with Slurm, a signal reaches every process of the step
cores=${SRUN_CPUS_PER_TASK:-1} tasks=1 wanted= without=
while [[ $1 == --* ]]; do
    case $1 in
        --cpus-per-task=*) cores=${1#*=} ;;
        --ntasks=*) tasks=${1#*=} ;;
        --nodelist=*) wanted=${1#*=} ;;
        --exclude=*) without=${1#*=} ;;
        --nodes=* | --export=ALL) ;;
        *) echo "srun: unrecognized option '$1'" >&2; exit 1 ;;
    esac
    shift
done
pids=()
trap 'kill -TERM -- "${pids[@]}" 2>/dev/null || true; wait' TERM
for node in ${SLURM_JOB_NODELIST//,/ }; do
    [[ -n $wanted && $node != "$wanted" || $node == "$without" ]] && continue
    ((tasks-- > 0)) || break
    mkdir -p "$STAND_IN_NODES/$node"
    # The job's script runs on the first node; the others have disks of their own.
    if [[ $node != "${SLURM_JOB_NODELIST%%,*}" ]]; then
        export S3T_RAY_FOLDER=$STAND_IN_NODES/$node/ray S3T_NODE_SCRATCH=$STAND_IN_NODES/$node/scratch
    fi
    SLURM_CPUS_PER_TASK=$cores SLURMD_NODENAME=$node "$@" &
    pids+=("-$!")
done
wait
wait
"""

RAY = """#!{python}
import json, os, signal, socket, sys
from pathlib import Path
verb, *options = sys.argv[1:]
given = dict(option.partition("=")[::2] for option in options if option.startswith("--"))
if verb == "health-check":
    host, port = options[1].rsplit(":", 1)
    with socket.socket() as probe:
        sys.exit(probe.connect_ex(("127.0.0.1", int(port))) != 0)
assert verb == "start", verb
node = os.environ["SLURMD_NODENAME"]
if node == os.environ["STAND_IN_BROKEN"]:
    sys.exit(f"{{node}} is broken")
listening = []
for name, value in given.items():
    # Both nodes of a job are one machine here: the agent of each would listen at the same port.
    if name.endswith("port") and value != "0" and (not name.startswith("--dashboard-agent") or "--head" in given):
        listening.append(socket.create_server(("127.0.0.1", int(value))))
Path(os.environ["TMPDIR"], "a copy of a slice").touch()
record = {{"options": given, "cores": int(os.environ["SLURM_CPUS_PER_TASK"]), "tmpdir": os.environ["TMPDIR"],
           "token": os.environ["RAY_AUTH_TOKEN"], "ray_folder": os.environ["S3T_RAY_FOLDER"]}}
Path(os.environ["STAND_IN_NODES"], f"{{node}}.json").write_text(json.dumps(record))
signal.pause()
"""

PYTHON = """#!{python}
import os, sys, threading
from pathlib import Path
if sys.argv[1] == "-":  # waits until Ray has so many nodes
    assert "ray.init" in sys.stdin.read()
    while len(list(Path(os.environ["STAND_IN_NODES"]).glob("*.json"))) < int(sys.argv[3]):
        threading.Event().wait(0.05)
    sys.exit()
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


class SlurmJob:
    """`cluster/slurm.sh` at work as job `number` on these nodes, with `training` as the project's jobs/train.py."""

    def __init__(
        self, script: Path, folder: Path, number: int, nodes: tuple[str, ...], training: str, broken: str = ""
    ) -> None:
        self.nodes = folder / f"nodes-{number}"
        self.nodes.mkdir()
        project, commands = folder / f"project-{number}", folder / f"commands-{number}"
        (project / "jobs").mkdir(parents=True)
        (project / "jobs" / "train.py").write_text(training)
        _executables(commands, {"srun": SRUN, "scontrol": SCONTROL})
        python = {"python": sys.executable}
        _executables(project / ".venv" / "bin", {"ray": RAY.format(**python), "python": PYTHON.format(**python)})
        environment: Mapping[str, str] = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": ",".join(nodes),
            "SLURM_JOB_NUM_NODES": str(len(nodes)),
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_SUBMIT_DIR": str(project),
            "TMPDIR": str(folder),
            "STAND_IN_NODES": str(self.nodes),
            "STAND_IN_BROKEN": broken,
        }
        self.process = subprocess.Popen(
            ["bash", script, "run.yaml"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self) -> tuple[int, str]:
        """Exit code and output, once it has ended."""
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


def _executables(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
