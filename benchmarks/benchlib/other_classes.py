"""Splits CIFAR-10's classes in half: a small ViT learns five as a base, and the measured systems learn the others.

In: Parquet files in the layout of Hugging Face (id, image, label). Out: the base's folder; files of the other classes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from s3t_ray.config.task_section import Task
from s3t_ray.data.images.image_transform import read_transform

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LEARNED_BY_BASE = (0, 1, 7, 8, 9)
LEARNED_BY_ENSEMBLE = (2, 3, 4, 5, 6)


def make_base(train: Path, test: Path, folder: Path, epochs: int) -> None:
    """Train a 6-layer ViT on the base's classes only, and print its accuracy on them."""
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
    print(f"base: {time.perf_counter() - began:.0f} s, {float(right):.1%} on its own five classes", flush=True)
    model.vit.save_pretrained(folder)


def _tensors(path: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [R x 3 x 32 x 32] of the base's classes, and their class indexes."""
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
