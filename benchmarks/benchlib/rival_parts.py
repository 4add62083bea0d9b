"""The training and evaluation records of the compared systems, assigned to shards and slices.

In: a benchmark's arguments (base, train, dev, task, records, dev_records, shards, slices) and a seed. Out: contents of
the dev set, and rows by (shard, slice). No training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

from benchlib.other_classes import CLASSES, LEARNED_BY_ENSEMBLE
from benchlib.rival_training import Parts
from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.slices import Row

IMAGES = "animals"
"""Five classes of CIFAR-10, beside the text benchmarks of `task.benchmark`."""


def task_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The `task` section of the requested benchmark."""
    if arguments.task == IMAGES:
        return {"kind": "image_classification", "labels": [CLASSES[label] for label in LEARNED_BY_ENSEMBLE]}
    return {"benchmark": arguments.task, "max_tokens": 128}


def read_parts(arguments: argparse.Namespace, seed: int) -> tuple[list[str], Parts]:
    """Contents of the dev set, and training rows by (shard, slice), assigned by a hash of seed and id."""

    def contents(path: Path, most: int) -> list[tuple[str, str]]:
        config = _reading(arguments, path)
        return [(each.id, each.content) for each in islice(read_records(config.data, config.task), most)]

    rows = [
        Row(name, content, hashlib.sha256(content.encode()).digest())
        for name, content in contents(arguments.train, arguments.records)
    ]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed} {row.id}".encode()).digest())
    parts: dict[tuple[int, int], list[Row]] = {}
    for at, row in enumerate(rows):
        place = (at % arguments.shards, at // arguments.shards % arguments.slices)
        parts.setdefault(place, []).append(row)
    return [content for _, content in contents(arguments.dev, arguments.dev_records)], parts


def _reading(arguments: argparse.Namespace, path: Path) -> Config:
    """A config for reading the rows of one file."""
    tree = {
        "name": "rivals",
        "shards": 1,
        "slices": 1,
        "budget": 1,
        "model": {"path": str(arguments.base)},
        "task": task_of(arguments),
        "data": {"path": str(path)},
        "lora": {"layers_per_group": 1},
        "storage": {"uri": "none"},
    }
    return parse_config(json.dumps(tree), "the benchmark's config")
