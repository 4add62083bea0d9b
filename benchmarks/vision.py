"""Trains image classes on a small ViT pretrained on other classes: accuracy as images are deleted, without healing.

    python benchmarks/vision.py --train cifar10/train.parquet --test cifar10/test.parquet --base FOLDER

The base learns five classes (four vehicles and the horse) from scratch, without keeping its head, and is saved in
FOLDER. The ensemble learns the other five, all animals: 2 shards of 3 slices, in all cyclic orders. A stream of
deletions then takes stages out of service, as the scheduler prunes them, and the remaining stages classify the held-out
images: with one order per shard (SISA) and with three. In: CIFAR-10 in the layout of Hugging Face (id, image, label).
Out: a table. Trains in one process, without Ray.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from benchlib.job_inputs import NO_SECRET, put_slice
from benchlib.other_classes import CLASSES, LEARNED_BY_ENSEMBLE, make_base, take_classes

from s3t_ray.config.load import dump_config, parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.slices import Row
from s3t_ray.ensemble.replica import Replica
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob
from s3t_ray.train.trainer import Trainer

SHARDS, SLICES = 2, 3
ORDERS = tuple(tuple((start + step) % SLICES for step in range(SLICES)) for start in range(SLICES))

Chains = Mapping[tuple[int, tuple[int, ...]], tuple[str, ...]]
"""Stage ids by shard and order, depth 1 first."""


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    if not (arguments.base / "model.safetensors").exists():
        make_base(arguments.train, arguments.test, arguments.base, arguments.base_epochs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = _config(arguments, folder)
        began = time.perf_counter()
        chains, placed = _train(config, arguments.base, folder)
        print(f"{len(placed)} images, {len(chains) * SLICES} stages: {time.perf_counter() - began:.0f} s", flush=True)
        replica = Replica(dump_config(config), str(arguments.base), config.storage.uri, 1)
        held_out = config.data.model_copy(update={"path": str(folder / "test.parquet")})
        contents = [record.content for record in read_records(held_out, config.task)]
        stream = random.Random(0).sample(placed, arguments.deletions)
        judged: dict[tuple[tuple[str, ...], ...], float] = {}
        print("deletions | depths and accuracy: one order | three orders")
        for deletions in range(len(stream) + 1):
            row = [_left(chains, orders, stream[:deletions]) for orders in (ORDERS[:1], ORDERS)]
            for live in row:
                if live not in judged:
                    replica.set_live(len(judged) + 1, dict(enumerate(live)))
                    judged[live] = replica.evaluate(contents).current.metrics["accuracy"]
            told = " | ".join(f"{[len(chain) for chain in live]} {judged[live]:.1%}" for live in row)
            print(f"{deletions} | {told}", flush=True)


def _config(arguments: argparse.Namespace, folder: Path) -> Config:
    take_classes(arguments.train, folder / "train.parquet", arguments.records)
    take_classes(arguments.test, folder / "test.parquet", None)
    tree = {
        "name": "animals",
        "shards": SHARDS,
        "slices": SLICES,
        "budget": len(ORDERS),
        "model": {"path": str(arguments.base)},
        "task": {"kind": "image_classification", "labels": [CLASSES[label] for label in LEARNED_BY_ENSEMBLE]},
        "data": {"path": str(folder / "train.parquet")},
        "lora": {"layers_per_group": 2, "rank": 16, "alpha": 16},
        "optimizer": {"lr": 2e-3, "epochs": arguments.epochs, "batch_records": 32, "schedule": "linear"},
        "engine": {"micro_batch_tokens": 17 * 32},
        "storage": {"uri": str(folder / "run")},
    }
    return parse_config(json.dumps(tree), "the benchmark's config")


def _train(config: Config, base: Path, folder: Path) -> tuple[Chains, list[tuple[int, int]]]:
    """Every order of every shard, and the (shard, slice) of each record."""
    store = Store.open(config.storage.uri)
    parts: dict[tuple[int, int], list[Row]] = {}
    for number, record in enumerate(read_records(config.data, config.task)):
        row = Row(record.id, record.content, number.to_bytes(32, "big"))
        parts.setdefault((number % SHARDS, number // SHARDS % SLICES), []).append(row)
    slices = {place: put_slice(store, folder, *place, rows) for place, rows in parts.items()}
    trainer = Trainer(config, base, store, folder / "scratch")
    chains: dict[tuple[int, tuple[int, ...]], tuple[str, ...]] = {}
    for shard in range(SHARDS):
        for order in ORDERS:
            chain: tuple[str, ...] = ()
            for depth in range(1, SLICES + 1):
                learned = tuple(slices[shard, index] for index in order[:depth])
                name = f"stage-{shard}-{'-'.join(map(str, order[:depth]))}"
                job = StageJob(name, "recipe", "b" * 64, shard, learned, chain, NO_SECRET)
                chain = (*chain, trainer.train(job, lambda progress: None, lambda: False).stage_id)
            chains[shard, order] = chain
    return chains, [place for place, rows in parts.items() for _ in rows]


def _left(
    chains: Chains, orders: Sequence[tuple[int, ...]], deleted: Sequence[tuple[int, int]]
) -> tuple[tuple[str, ...], ...]:
    """The deepest chain of each shard that no deletion has hit; () for a dead shard."""

    def depths(shard: int) -> Iterator[tuple[str, ...]]:
        for order in orders:
            struck = [order.index(index) for where, index in deleted if where == shard]
            yield chains[shard, order][: min(struck, default=SLICES)]

    return tuple(max(depths(shard), key=len) for shard in range(SHARDS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--records", type=int, default=240, help="use the first N images of each class")
    parser.add_argument("--deletions", type=int, default=8)
    parser.add_argument("--base-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
