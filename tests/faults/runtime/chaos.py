"""A real run on a live Ray cluster whose processes are killed at random during deletions, and its checks.

In: a folder and a `Plan`. Out: a `Report`. Everything is bounded: so many kills, so many deletions, so
many seconds until the run is settled. Kills by process id, only of processes that this one started.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from s3t_ray.ledger.values import StageState
from s3t_ray.run.run import Run
from s3t_ray.store.published_stage import read_manifest
from tests.cluster.raylets import descendants
from tests.fakes import write_records
from tests.faults.runtime.chaos_plan import ACTORS, AT_ONCE, LOOK_SECONDS, LOOKS, Plan, Report
from tests.faults.runtime.promises import Adapters, unkept
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[3]


@dataclass
class Chaos:
    """One run: `live` makes it, kills its processes, waits until it settles, and checks it."""

    folder: Path
    plan: Plan
    note: Callable[[str], None] = lambda line: None
    _dice: random.Random = field(init=False)
    _cluster: Any = None
    _driver: subprocess.Popen[bytes] | None = None
    _deleter: subprocess.Popen[bytes] | None = None
    _killed: Counter[str] = field(default_factory=Counter)
    _errors: list[str] = field(default_factory=list)
    _handed_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.plan.seed)

    def live(self) -> Report:
        began = time.monotonic()
        self._prepare()
        with self._raylets():
            try:
                self._tend()
                _wait("the data is read", lambda: self._tended(self._ingested), self.plan.settle_seconds)
                last = time.monotonic() + self.plan.kill_seconds
                while sum(self._killed.values()) < self.plan.kills and time.monotonic() < last:
                    if self._dice.random() >= AT_ONCE:
                        self._pause(self._dice.uniform(*self.plan.pause_seconds))
                    self._tend()
                    self._strike(self._dice.sample(self.plan.kinds, len(self.plan.kinds)))
                    self._ask_for_certificates()
                _wait("all deletions are sent", lambda: self._tended(self._sent), self.plan.settle_seconds)
                self._stop_file.touch()
                _wait("the run is settled", lambda: self._tended(self._done), self.plan.settle_seconds)
            finally:
                self._end()
        return self._judge(time.monotonic() - began)

    def _tended(self, condition: Callable[[], bool]) -> bool:
        self._tend()
        return condition()

    def _prepare(self) -> None:
        plan, folder = self.plan, self.folder
        people = [(f"r{number:05d}", f"p{number % 40}") for number in range(plan.deletions + 60)]
        tiny_llama(folder / "base", layers=4, hidden=16)
        write_records(folder / "data.jsonl", people)
        names = [name for name, _ in people]
        self._dice.shuffle(names)
        requests: list[tuple[list[str], list[str]]] = [([name], []) for name in names[: plan.deletions]]
        for number in range(9, len(requests), 10):  # some name what was deleted before, too
            requests[number] = ([*requests[number][0], *requests[number - 5][0]], [])
        self._requests.write_text(json.dumps(requests))
        self._write_config(folder, folder / "config.yaml")

    def _write_config(self, folder: Path, path: Path) -> None:
        document = {
            "name": "chaos",
            "shards": 2,
            "slices": 2,
            "budget": 2,
            "model": {"path": str(self.folder / "base")},
            "data": {"path": str(folder / "data.jsonl"), "subject_field": "subject", "partition_key": "seed"},
            "lora": {"layers_per_group": 2, "rank": 2},
            "optimizer": {"epochs": 1, "lr": 0.01, "batch_records": 16},
            "engine": {"ranks": self.plan.ranks, "checkpoint_steps": 1},
            # Some 45 tokens per record, since the tokenizer spells bytes; the default prompt alone has more than 64.
            "task": {"prompt": "chat_template", "max_tokens": 64},
            "workers": {"groups": self.plan.groups},
            "storage": {"uri": str(folder / "run")},
        }
        path.write_text(yaml.safe_dump(document))

    @contextmanager
    def _raylets(self) -> Iterator[None]:
        if not self.plan.nodes:
            yield
            return
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(self.plan.nodes - 1):
                self._add_node()
            yield
        finally:
            with suppress(ProcessLookupError):
                self._cluster.shutdown()

    def _add_node(self) -> None:
        self._cluster.add_node(num_cpus=2, object_store_memory=80 * 1024 * 1024)

    def _tend(self) -> None:
        """Restart the driver and the deleter if they have died."""
        if self._driver is None or self._driver.poll() is not None:
            if self._driver is not None and self._driver.returncode not in (0, -signal.SIGKILL):
                self._errors.append(self._log("driver").read_text()[-2000:])
            if self._driver is None or self._driver.returncode != 0:
                address = self._cluster.address if self._cluster else "-"
                self._driver = self._child("driver", "follow", self.folder / "config.yaml", address, self._stop_file)
        if not self._ingested() or self._sent():
            return
        if self._deleter is None or self._deleter.poll() is not None:
            if self._deleter is not None and self._deleter.returncode not in (0, -signal.SIGKILL):
                self._errors.append(self._log("deleter").read_text()[-2000:])
            pause = self.plan.seconds_a_deletion
            self._deleter = self._child(
                "deleter", "delete", self.folder / "run", self._requests, self._acknowledged, pause
            )

    def _child(self, name: str, role: str, *arguments: object) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.runtime.chaos_child", role, *map(str, arguments)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def _strike(self, kinds: Sequence[str]) -> None:
        """Kill one process or node, of the first of these kinds of which there is one, or soon will be."""
        for kind in kinds:
            if kind == "deleter" and self._sent():
                continue
            if any(self._kill(kind) for _ in self._looks()):
                self._killed[kind] += 1
                done = sum(self._killed.values())
                self.note(f"kill {done} of {self.plan.kills}: {kind}; {self._acks()} deletions so far")
                return

    def _looks(self) -> Iterator[int]:
        """Some, with pauses: an actor that was killed takes its time to come back."""
        for look in range(LOOKS):
            yield look
            self._pause(LOOK_SECONDS)
            self._tend()

    def _kill(self, kind: str) -> bool:
        if kind == "node":
            return self._kill_node()
        if kind == "ray.kill":
            return self._ray_kill()
        if kind in ("driver", "deleter"):
            child = self._driver if kind == "driver" else self._deleter
            if child is None or child.poll() is not None:
                return False
            child.kill()
            child.wait()
            return True
        found = self._actors(ACTORS[kind])
        if not found:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._dice.choice(found), signal.SIGKILL)
        return True

    def _kill_node(self) -> bool:
        """Kill a raylet and its processes, and start another. Never the head, which has the cluster's state."""
        if self._cluster is None:
            return False
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id)
        self._cluster.remove_node(self._dice.choice(nodes), allow_graceful=False)
        self._add_node()
        return True

    def _actors(self, title: str) -> list[int]:
        found = []
        for pid in descendants(os.getpid()):
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").startswith(title):
                    found.append(pid)
        return sorted(found)

    def _ray_kill(self) -> bool:
        """Kill the scheduler from another process, as anyone with a handle could."""
        if self._cluster is None:
            return False
        program = (
            "import sys, ray\n"
            "from s3t_ray.runtime.connect import NAMESPACE, actor_name\n"
            "ray.init(address=sys.argv[1], namespace=NAMESPACE, logging_level='error', log_to_driver=False)\n"
            "ray.kill(ray.get_actor(actor_name('scheduler', sys.argv[2])))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, self._cluster.address, str(self.folder / "run")],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            timeout=120,
        )
        return done.returncode == 0

    def _end(self) -> None:
        for child in (self._driver, self._deleter):
            if child is not None and child.poll() is None:
                family = descendants(child.pid)
                child.kill()
                child.wait()
                for pid in family:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _judge(self, seconds: float) -> Report:
        acknowledged = [line.split()[1] for line in self._acknowledged.read_text().splitlines()]
        gone = {name for ids, _ in json.loads(self._requests.read_text()) for name in ids}
        with Run.open(self.folder / "run") as run:
            problems = unkept(run, acknowledged, self._afresh(gone), self._handed_out)
            problems += _untrained(run)
            deletions = run.ledger.deletions()
            present = {row.receipt.request_id for row in deletions}
            return Report(
                plan=self.plan,
                kills=dict(self._killed),
                acknowledged=len(acknowledged),
                lost=len(set(acknowledged) - present),
                restored=sum(row.times.restored is not None for row in deletions),
                certificates=len(self._handed_out),
                driver_errors=tuple(self._errors),
                problems=tuple(problems),
                seconds=seconds,
                epochs=run.ledger.lease().epoch,
            )

    def _afresh(self, gone: set[str]) -> Adapters:
        """Adapters of a training that never saw the deleted records, in one process, without Ray."""
        fresh = self.folder / "fresh"
        fresh.mkdir()
        lines = (self.folder / "data.jsonl").read_text().splitlines()
        (fresh / "data.jsonl").write_text("".join(f"{ln}\n" for ln in lines if json.loads(ln)["id"] not in gone))
        self._write_config(fresh, fresh / "config.yaml")
        child = self._child("afresh", "afresh", fresh / "config.yaml", fresh / "adapters.json")
        assert child.wait(600) == 0, self._log("afresh").read_text()[-3000:]
        return {
            (s, tuple(order)): bytes.fromhex(d) for s, order, d in json.loads((fresh / "adapters.json").read_text())
        }

    def _ask_for_certificates(self) -> None:
        """Like a requester: proofs issued now must be in the chain at the end."""
        with Run.open(self.folder / "run") as run:
            given = len(self._handed_out)
            self._handed_out += [row.text for row in run.ledger.log()[given:]]

    def _pause(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def _ingested(self) -> bool:
        return (self.folder / "run" / "ledger.db").exists() and _has_run(self.folder / "run")

    def _acks(self) -> int:
        return len(self._acknowledged.read_text().splitlines()) if self._acknowledged.exists() else 0

    def _sent(self) -> bool:
        return self._acks() >= self.plan.deletions

    def _done(self) -> bool:
        return self._driver is not None and self._driver.poll() == 0

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    @property
    def _requests(self) -> Path:
        return self.folder / "requests.json"

    @property
    def _acknowledged(self) -> Path:
        return self.folder / "acknowledged"

    @property
    def _stop_file(self) -> Path:
        return self.folder / "stop"


def _untrained(run: Run) -> list[str]:
    """Stages that learned nothing, whose adapters would be equal for any data."""
    live = [row.id for row in run.ledger.stages(state=StageState.LIVE)]
    return [f"stage {name[:12]} was trained on no token" for name in live if not read_manifest(run.store, name).losses]


def _has_run(run: Path) -> bool:
    from s3t_ray.errors import S3TError

    with suppress(S3TError), Run.open(run) as opened:
        return opened.ledger.run() is not None and all(state.file for state in opened.ledger.slices())
    return False


def _wait(what: str, condition: Callable[[], object], seconds: float) -> None:
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        pause.wait(0.5)
