"""One rank of a worker group in a separate process: trains the given labs and prints the results.

Usage: python -m tests.e2e.train.rank_main RANK WORLD INIT_METHOD LAB_FOLDER...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.job import StageStopped
from s3t_ray.train.trainer import Trainer
from tests.e2e.train.lab import Lab, load_lab, train, train_chain


def main(rank: int, world: int, init_method: str, folders: list[str]) -> None:
    for folder in folders:
        lab = load_lab(Path(folder))
        trainer = lab.trainer(rank, world, init_method)
        held = held_share(trainer)
        names = train_chain(lab, trainer, f"of{world}-", (0, 1))
        again = train_chain(lab, trainer, f"again-of{world}-", (0, 1))
        stopped = False
        try:
            # Only the last rank is asked to stop: all must.
            train(trainer, lab.job("stopped", (2,)), should_stop=lambda: rank == world - 1)
        except StageStopped:
            stopped = True
        print("RESULT", json.dumps(report(lab, names, again, stopped, held)), flush=True)


def held_share(trainer: Trainer) -> float:
    """The number of base parameters that this rank holds before training."""
    parameters = list(trainer._base.model.parameters())
    held = sum(parameter.numel() or getattr(parameter, "ds_tensor", parameter).numel() for parameter in parameters)
    return held / sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in parameters)


def report(lab: Lab, names: list[str], again: list[str], stopped: bool, held: float) -> dict[str, object]:
    return {
        "zero": lab.config.engine.zero_stage,
        "losses": [loss for name in names for loss in read_manifest(lab.store, name).losses],
        "adapters": [read_manifest(lab.store, name).adapter_sha256 for name in names],
        "again": [read_manifest(lab.store, name).adapter_sha256 for name in again],
        "stopped": stopped,
        "held": held,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
