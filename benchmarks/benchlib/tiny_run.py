"""The config of a complete run on numbered records and a tiny base, for measuring the scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchlib.tiny_base import tiny_base
from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config


def tiny_run(
    folder: Path, name: str, *, shards: int, slices: int, budget: int, records_per_slice: int, **optimizer: Any
) -> Config:
    """Write the base and records r0, r1, ... to `folder`; the run's own storage is `folder`/run."""
    base = tiny_base(folder / "base", 2 * slices)
    with (folder / "data.jsonl").open("w") as file:
        for number in range(shards * slices * records_per_slice):
            row = {"id": f"r{number}", "instruction": f"Say number {number}.", "output": f"It is {number}."}
            file.write(json.dumps(row) + "\n")
    document = {
        "name": name,
        "shards": shards,
        "slices": slices,
        "budget": budget,
        "model": {"path": str(base)},
        "data": {"path": str(folder / "data.jsonl"), "partition_key": "seed"},
        "lora": {"rank": 4, "layers_per_group": 2},
        "optimizer": optimizer,
        "workers": {"groups": 1},
        "closure": {"near_duplicates": False},
        "storage": {"uri": str(folder / "run")},
    }
    return parse_config(json.dumps(document), "the benchmark")
