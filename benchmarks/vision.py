"""Images: a small ViT whose base learned other classes; accuracy of the ensemble as images are deleted, nothing healed.

    python benchmarks/vision.py --train cifar10/train.parquet --test cifar10/test.parquet --base FOLDER

The base learns five classes (four vehicles and the horse) from scratch and loses its head; it is kept in FOLDER. The
ensemble learns the other five, animals: 2 shards of 3 slices, in all cyclic orders of the slices. A stream of deletions
then takes stages out of service, as the scheduler prunes them, and the held-out images are judged by what is left: with
one order a shard (SISA) and with three. In: CIFAR-10 in the layout of Hugging Face (id, image, label). Out: a table.
Trains in one process, without Ray.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from benchlib.job_inputs import NO_SECRET, put_slice

from s3t_ray.config.load import dump_config, parse_config
from s3t_ray.config.schema import Config
from s3t_ray.config.task_section import Task
from s3t_ray.data.images.image_transform import read_transform
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.slices import Row
from s3t_ray.ensemble.replica import Replica
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob
from s3t_ray.train.trainer import Trainer

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LEARNED_BY_BASE = (0, 1, 7, 8, 9)
LEARNED_BY_ENSEMBLE = (2, 3, 4, 5, 6)
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


def make_base(train: Path, test: Path, folder: Path, epochs: int) -> None:
    """A ViT of 6 layers that was trained on the classes of the base alone; prints its accuracy on them."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    settings = ViTConfig(
        hidden_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=384,
        image_size=32,
        patch_size=8,
        num_labels=len(LEARNED_BY_BASE),
    )
    model = ViTForImageClassification(settings)
    folder.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(folder)
    told = {"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    images, labels = _tensors(train, folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    began = time.perf_counter()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            flipped = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, images[batch].flip(-1), images[batch])
            loss = model(pixel_values=flipped, labels=labels[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    images, labels = _tensors(test, folder)
    with torch.inference_mode():
        right = (model(pixel_values=images).logits.argmax(-1) == labels).float().mean()
    print(f"base: {time.perf_counter() - began:.0f} s, {float(right):.1%} of its own five classes", flush=True)
    model.vit.save_pretrained(folder)


def _tensors(path: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [R x 3 x 32 x 32] of the base's classes, and their numbers among these."""
    transform = read_transform(folder, Task(kind="image_classification", labels=CLASSES))
    rows = [row for row in pq.read_table(path).to_pylist() if row["label"] in LEARNED_BY_BASE]
    images = torch.stack([torch.from_numpy(transform.pixels(row["image"]["bytes"])) for row in rows])
    return images, torch.tensor([LEARNED_BY_BASE.index(row["label"]) for row in rows])


def take_classes(source: Path, target: Path, most: int | None) -> None:
    """Copy the rows of the ensemble's classes, the first `most` of each."""
    taken: dict[int, list[dict[str, Any]]] = {label: [] for label in LEARNED_BY_ENSEMBLE}
    for row in pq.read_table(source).to_pylist():
        if row["label"] in taken and (most is None or len(taken[row["label"]]) < most):
            taken[row["label"]].append({**row, "label": CLASSES[row["label"]]})
    pq.write_table(pa.Table.from_pylist([row for own in taken.values() for row in own]), target)


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
    """The deepest chain of each shard that no deletion has struck; () for a dead shard."""

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
    parser.add_argument("--records", type=int, default=240, help="of each class, the first")
    parser.add_argument("--deletions", type=int, default=8)
    parser.add_argument("--base-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
