"""A real Ray cluster on this machine, as an operator starts one, by the lines of docs/cluster.md; and a laptop, from
where jobs are submitted by the lines of the README.

Every port is free when it is chosen, and only processes that were started here are ended, by their pid.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.cluster.page_lines import ROOT, commands, filled

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Any, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until `condition()` is true, and return it. Fails after `seconds`, a generous limit, naming `what`."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        pause.wait(0.3)
    return found


class Raylets:
    """A head and more raylets, each with one logical GPU, behind a token. Use it in a `with`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.token = secrets.token_hex(32)
        self.port, self.dashboard = free_port(), free_port()
        self.metrics: list[int] = []  # port of each node
        # Short: the path of a socket in it has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="s3t-ray-"))
        passed = {"RAY_worker_niceness"}  # how soon a node's workers run beside other tests: tools/test
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or name in passed}
        self.environment = {
            **kept,
            **environment,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_metrics_report_interval_ms": "1000",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def jobs(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start(self, raylets: int) -> None:
        """A head, and more raylets beside it: the first two of the page's three lines."""
        head, node, _ = commands("docs/cluster.md", "Three lines")
        self._wait_until_up(self._start(*self._told(head)))
        for number in [self._start(*self._told(node)) for _ in range(raylets - 1)]:
            self._wait_until_up(number)

    @property
    def places(self) -> dict[str, str]:
        """Placeholders of the pages for parts of this cluster, and their values."""
        return {
            "$TOKEN": self.token,
            "RAY_AUTH_TOKEN=...": f"RAY_AUTH_TOKEN={self.token}",
            "HEAD:8265": f"127.0.0.1:{self.dashboard}",
            "HEAD:6379": self.address,
            "--port=6379": f"--port={self.port}",
            "0.0.0.0": "127.0.0.1",
        }

    def submit(self, *entrypoint: str, wait: bool = True, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """`ray job submit` with the cluster's token or another one ("" for none).

        As the README says: the folder `jobs` is packed; the project's, for a script that is named from there.
        """
        folder = ROOT if entrypoint[0].startswith("jobs/") else ROOT / "jobs"
        options = ["--address", self.jobs, "--working-dir", str(folder), *(() if wait else ("--no-wait",))]
        return self._ray("job", "submit", *options, "--", "python", *entrypoint, token=token)

    def status(self, job_id: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, as the job server answers over HTTP."""
        return str(self._look(job_id)["status"])

    def status_message(self, job_id: str) -> str:
        """The job server's message about a job."""
        return str(self._look(job_id)["message"])

    def _look(self, job_id: str) -> Any:
        url = urllib.request.Request(
            f"{self.jobs}/api/jobs/{job_id}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)

    def job(self, verb: str, job_id: str) -> str:
        """Output of `ray job <verb> <job_id>`."""
        done = self._ray("job", verb, "--address", self.jobs, job_id)
        return done.stdout + done.stderr

    def kill(self, raylet: subprocess.Popen[bytes]) -> None:
        """Kill a node with all its processes, like a power cut."""
        for process in [raylet.pid, *descendants(raylet.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        raylet.wait(30)

    def actors(self, class_name: str, node: subprocess.Popen[bytes] | None = None) -> list[int]:
        """Processes of the cluster, or of one node, that are actors of this class."""
        nodes = [one for one in self.processes if one.poll() is None] if node is None else [node]
        family = [pid for one in nodes for pid in descendants(one.pid)]
        found = []
        for pid in family:
            with suppress(FileNotFoundError, ProcessLookupError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
                # Ray titles an actor's process after its class, and after the method it runs.
                if title.partition(".")[0] == f"ray::{class_name}":
                    found.append(pid)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                self.kill(process)  # a graceful shutdown takes half a minute, and nothing is kept
        shutil.rmtree(self.folder, ignore_errors=True)

    def _told(self, line: str) -> list[str]:
        """The options of a `ray start` of a page; the environment that it sets is that of the whole cluster."""
        environment, words = filled(line, self.places)
        assert words[:2] == ["ray", "start"] and environment.items() <= self.environment.items(), line
        return words[2:]

    def _start(self, *options: str) -> int:
        """`ray start` with these options, and with what several nodes of one machine need besides."""
        number = len(self.processes)
        # Ray's clients get a port that nothing here uses: the default is the same for all clusters.
        ports = (f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={free_port()}")
        head = ports if "--head" in options else ()
        self.metrics.append(free_port())
        log = (self.folder / f"start-{number}.log").open("wb")
        process = subprocess.Popen(
            [
                BIN / "ray",
                "start",
                "--block",
                "--num-cpus=2",
                "--num-gpus=1",
                "--node-ip-address=127.0.0.1",
                "--object-store-memory=100000000",
                f"--dashboard-agent-listen-port={free_port()}",
                f"--metrics-export-port={self.metrics[number]}",
                # As on separate machines: each unpacks a job's working folder itself.
                f"--temp-dir={self.folder}/{number}",
                *head,
                *options,
            ],
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )
        log.close()
        self.processes.append(process)
        return number

    def _wait_until_up(self, number: int) -> None:
        def up() -> bool:
            text = (self.folder / f"start-{number}.log").read_text()
            for process in self.processes:  # otherwise it would silently wait for a head that has ended
                assert process.poll() is None, text
            return "Ray runtime started" in text

        wait_for(f"start of raylet {number}", up)

    def _ray(self, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = dict(self.environment)
        if token is not None:
            environment["RAY_AUTH_TOKEN"] = token
            environment["RAY_AUTH_MODE"] = "token" if token else "disabled"
        return subprocess.run(
            [BIN / "ray", *arguments], env=environment, capture_output=True, text=True, timeout=300, cwd=self.folder
        )


class Laptop:
    """A machine with the project and a config, which knows only what the README says about a cluster."""

    def __init__(self, cluster: Raylets, folder: Path, config: Path, places: Mapping[str, str]) -> None:
        shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(config, folder / "my.yaml")
        self._folder = folder
        self._places = {**cluster.places, **places}
        export, copy, *self._submits = commands("README.md", "On a cluster")
        told, _ = filled(export, self._places)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "S3T_"))}
        self._environment = {**kept, **told, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        self._run(filled(copy, self._places)[1])

    def submit(self, script: str, *more: str, wait: bool = True) -> subprocess.CompletedProcess[str]:
        """The README's line for this script of jobs/, with `more` options appended."""
        (line,) = (line for line in self._submits if f"python {script} " in line)
        _, words = filled(line, self._places)
        assert words[:3] == ["ray", "job", "submit"], line
        return self._run([*words[:3], *(() if wait else ("--no-wait",)), *words[3:], *more])

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, env=self._environment, capture_output=True, text=True, timeout=3 * PATIENCE_SECONDS, cwd=self._folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def descendants(pid: int) -> list[int]:
    """Processes that `pid` started, directly or indirectly."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name in the second field may hold spaces and brackets; the parent is the second after it.
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(folder.name))
    found, queue = [], [pid]
    while queue:
        queue += (more := children.get(queue.pop(), []))
        found += more
    return found
