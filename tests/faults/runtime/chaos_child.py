"""The processes of a chaos run besides Ray's: the driver, the deleter, and a reference training from scratch.

`python -m tests.faults.runtime.chaos_child ROLE ...`, each to be killed at any time and started again
with the same arguments, the last excepted.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path

from s3t_ray.config.load import load_config
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.runtime.connect import connected
from s3t_ray.runtime.driver import drive
from s3t_ray.runtime.train import train
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.train.job import StageJob
from tests.fakes import Cluster, FakeWorkers, adapters
from tests.faults.runtime.deleters import acknowledge


def follow(config: Path, address: str, stop: Path) -> None:
    """What `s3t train` does, until the file `stop` is there and the run is settled. Address "-": a Ray of its own."""
    with Run.create(load_config(str(config))) as run:
        ingest(run, print)
        run.check_recipe()
        with connected(None if address == "-" else address):
            drive(
                run,
                detached=address != "-",
                watch=lambda state: None,
                until=lambda snapshot, state: stop.exists() and snapshot.idle and state.settled,
            )


def delete_stream(run: Path, requests: Path, acknowledged: Path, pause_seconds: float) -> None:
    """Every request of the file that is not acknowledged yet, one after the other."""
    lines = acknowledged.read_text().splitlines() if acknowledged.exists() else []
    done = {int(line.split()[0]) for line in lines}
    pause = threading.Event()
    with Run.open(run) as opened:
        for number, (ids, subjects) in enumerate(json.loads(requests.read_text())):
            if number in done:
                continue
            receipt = deletion.accept(opened, ids, subjects)
            acknowledge(acknowledged, f"{number} {receipt.request_id}")
            pause.wait(pause_seconds)


class TrainingWorkers(FakeWorkers):
    """One group that trains for real, in this process."""

    def __init__(self, run: Run, scratch: Path) -> None:
        from s3t_ray.train.trainer import Trainer

        super().__init__(run.store, groups=1)
        self._trainer = Trainer(run.config, run.base, run.store, scratch)

    def _end(self, group: int, job: StageJob) -> Finished:
        result = self._trainer.train(job, lambda progress: None, lambda: False)
        return Finished(group, job.stage_id, result=result)


def train_afresh(config: Path, out: Path) -> None:
    """Train the run of the config, without Ray where one rank does it, and write its adapters' bytes as JSON."""
    loaded = load_config(str(config), ["workers.groups=1"])  # it has this machine alone
    if loaded.engine.ranks > 1:
        train(loaded, address=None)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            Cluster(loaded, workers=lambda run: TrainingWorkers(run, Path(scratch))).settle(5000)
    with Run.open(loaded.storage.uri) as run:
        found = [[shard, slices, data.hex()] for (shard, slices), data in adapters(run).items()]
    out.write_text(json.dumps(found))


def main(role: str, *arguments: str) -> None:
    match role:
        case "follow":
            config, address, stop = arguments
            follow(Path(config), address, Path(stop))
        case "delete":
            run, requests, acknowledged, pause = arguments
            delete_stream(Path(run), Path(requests), Path(acknowledged), float(pause))
        case "afresh":
            config, out = arguments
            train_afresh(Path(config), Path(out))
        case _:
            raise SystemExit(f"no role {role!r}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*sys.argv[1:])
