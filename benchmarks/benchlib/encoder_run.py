"""Trains a small run of an encoder on a GLUE task in this process, without Ray.

In: the options of a benchmark: `train`, `base`, the task, and the run's sizes. Out: its config, and the published
stages of each shard.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from benchlib.job_inputs import NO_SECRET, put_slice
from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.slices import Row
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob
from s3t_ray.train.trainer import Trainer


def config_of(arguments: argparse.Namespace, folder: Path, states: str) -> Config:
    """The config of a run in `folder`; `states`: engine.hidden_states."""
    tree: dict[str, Any] = {
        "name": "encoder",
        "shards": arguments.shards,
        "slices": arguments.slices,
        "budget": 1,
        "model": {"path": str(arguments.base)},
        "task": {"benchmark": arguments.task, "max_tokens": 128},
        "data": {"path": str(arguments.train)},
        "lora": {"layers_per_group": arguments.layers_per_group},
        "optimizer": {"lr": arguments.lr, "epochs": arguments.epochs, "batch_records": 16, "schedule": "linear"},
        "engine": {"hidden_states": states, "micro_batch_tokens": 1024},
        "storage": {"uri": str(folder / "run")},
    }
    return parse_config(json.dumps(tree), "the benchmark's config")


def train_chains(config: Config, base: Path, folder: Path, most: int) -> tuple[dict[int, tuple[str, ...]], float, int]:
    """The chain of each shard, the CPU seconds of training, and the number of records."""
    store = Store.open(config.storage.uri)
    parts: dict[tuple[int, int], list[Row]] = {}
    records = 0
    for record in read_records(config.data, config.task):
        if records < most:  # the remaining rows are still read: a malformed row refuses the file
            place = (records % config.shards, records // config.shards % config.slices)
            digest = hashlib.sha256(record.content.encode()).digest()
            parts.setdefault(place, []).append(Row(record.id, record.content, digest))
            records += 1
    trainer = Trainer(config, base, store, folder / "scratch")
    began = time.process_time()
    chains: dict[int, tuple[str, ...]] = {}
    for shard in range(config.shards):
        slices = tuple(put_slice(store, folder, shard, index, parts[shard, index]) for index in range(config.slices))
        chain: tuple[str, ...] = ()
        for depth in range(1, config.slices + 1):
            job = StageJob(f"stage-{shard}-{depth}", "recipe", "b" * 64, shard, slices[:depth], chain, NO_SECRET)
            chain = (*chain, trainer.train(job, lambda progress: None, lambda: False).stage_id)
        chains[shard] = chain
    return chains, time.process_time() - began, records
