"""Images end to end, by the `s3t` command: a small ViT whose base learned other classes, and deletions from it.

    python benchmarks/vision.py --train cifar10/train.parquet --test cifar10/test.parquet --work FOLDER

The base learns five classes of vehicles and the horse, from scratch, and loses its head; the run learns the other five,
animals. Two runs, with one order a shard (SISA) and with one a slice: accuracy on the held-out images after training,
after some deletions, with nothing trained in between, and after healing. In: CIFAR-10 in the layout of Hugging
Face (id, image, label). Out: a table; what is in FOLDER already is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from s3t_ray.config.task_section import Task
from s3t_ray.data.images.image_transform import read_transform

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LEARNED_BY_BASE = (0, 1, 7, 8, 9)
LEARNED_BY_RUN = (2, 3, 4, 5, 6)
SLICES = 3
STEP = 2
"""Deletions between two figures."""


def main() -> None:
    arguments = _arguments()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not (work / "base" / "model.safetensors").exists():
        make_base(arguments.train, arguments.test, work / "base", arguments.base_epochs)
    ids = _take(arguments.train, work / "train.parquet", arguments.records)
    _take(arguments.test, work / "test.parquet", None)
    doomed = random.Random(0).sample(ids, arguments.deletions)
    for name, budget in (("one order", 1), ("an order a slice", SLICES)):
        began = time.perf_counter()
        config = _config(work, budget, arguments.epochs)
        _s3t("train", str(config))
        print(f"{name}: trained in {time.perf_counter() - began:.0f} s, {_judged(config)}", flush=True)
        for number in range(STEP, len(doomed) + 1, STEP):
            ids_of_step = [word for name in doomed[number - STEP : number] for word in ("--id", name)]
            _s3t("delete", str(config.parent / "run"), *ids_of_step)
            print(f"  after {number} deletions: {_judged(config)}", flush=True)
        began = time.perf_counter()
        _s3t("train", str(config), "--set", "requeue.policy=eager")
        print(f"  healed in {time.perf_counter() - began:.0f} s: {_judged(config)}", flush=True)


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


def _take(source: Path, target: Path, most: int | None) -> list[str]:
    """Copy the rows of the run's classes, the first `most` of each; their ids."""
    taken: dict[int, list[dict[str, Any]]] = {label: [] for label in LEARNED_BY_RUN}
    for row in pq.read_table(source).to_pylist():
        if row["label"] in taken and (most is None or len(taken[row["label"]]) < most):
            taken[row["label"]].append({**row, "label": CLASSES[row["label"]]})
    rows = [row for own in taken.values() for row in own]
    pq.write_table(pa.Table.from_pylist(rows), target)
    return [row["id"] for row in rows]


def _config(work: Path, budget: int, epochs: int) -> Path:
    folder = work / f"budget-{budget}"
    folder.mkdir(exist_ok=True)
    tree = {
        "name": f"animals-{budget}",
        "shards": 2,
        "slices": SLICES,
        "budget": budget,
        "model": {"path": str(work / "base")},
        "task": {"kind": "image_classification", "labels": [CLASSES[label] for label in LEARNED_BY_RUN]},
        "data": {"path": str(work / "train.parquet"), "holdout_path": str(work / "test.parquet")},
        "lora": {"layers_per_group": 2, "rank": 16, "alpha": 16},
        "optimizer": {"lr": 2e-3, "epochs": epochs, "batch_records": 32, "schedule": "linear"},
        "engine": {"micro_batch_tokens": 17 * 32},
        "requeue": {"policy": "lazy", "floor": 0},
        "workers": {"groups": 1},
        "storage": {"uri": str(folder / "run")},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _judged(config: Path) -> str:
    run = config.parent / "run"
    report = json.loads(_s3t("eval", str(run), "--json"))
    depths = [max(shard["depths"]) for shard in json.loads(_s3t("status", str(run), "--json"))["shards"]]
    return f"depths {depths}, accuracy {report['live']['metrics']['accuracy']:.1%}"


def _s3t(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "s3t_ray.cli.main", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"s3t {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--records", type=int, default=120, help="of each class, the first")
    parser.add_argument("--deletions", type=int, default=4)
    parser.add_argument("--base-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
