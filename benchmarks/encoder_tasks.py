"""A task of GLUE on a real encoder: held-out metrics by depth, and what stored hidden states save.

    python benchmarks/encoder_tasks.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl --task stsb

Trains the ensemble twice in one process, without Ray: from stored hidden states in packed rows, and with all states
recomputed in padded batches. In: rows with the benchmark's fields. Out: a table; CPU seconds of both, and their ratio.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchlib.job_inputs import NO_SECRET, put_slice

from s3t_ray.config.load import dump_config, parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.slices import Row
from s3t_ray.ensemble.answers import EvalReport
from s3t_ray.ensemble.replica import Replica
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob
from s3t_ray.train.trainer import Trainer


def main() -> None:
    arguments = _arguments()
    seconds: dict[str, float] = {}
    for states in ("store", "recompute"):
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(arguments, Path(folder), states)
            chains, seconds[states], records = train_chains(config, arguments.base, Path(folder), arguments.records)
            report = _judge(config, arguments.base, arguments.dev, chains)
        print(f"{arguments.task}, {records} records, hidden states: {states}, {seconds[states]:.0f} CPU seconds")
        for depth, score in sorted(report.by_depth.items()):
            told = "  ".join(f"{name} {value:.4f}" for name, value in score.metrics.items())
            print(f"  depth {depth}: loss {score.loss:.4f}  {told}")
    print(f"padded and recomputed / packed and stored: {seconds['recompute'] / seconds['store']:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--records", type=int, default=1_000, help="of the training file, the first")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--layers-per-group", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    return parser.parse_args()


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
    """The chain of each shard, CPU seconds of their training, and records."""
    store = Store.open(config.storage.uri)
    parts: dict[tuple[int, int], list[Row]] = {}
    records = 0
    for record in read_records(config.data, config.task):
        if records < most:  # the rest is read all the same: a malformed row refuses the file
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


def _judge(config: Config, base: Path, dev: Path, chains: Mapping[int, tuple[str, ...]]) -> EvalReport:
    replica = Replica(dump_config(config), str(base), config.storage.uri, config.engine.threads)
    replica.set_live(1, chains)
    held_out = config.data.model_copy(update={"path": str(dev)})
    return replica.evaluate([record.content for record in read_records(held_out, config.task)])


if __name__ == "__main__":
    main()
