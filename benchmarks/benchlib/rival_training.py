"""Trains the systems of a quality curve with one engine on the same slices: S3T, and SISA with and without slices.

In: rows by (shard, slice), orders, a base. Out: a published stage for each model, by shard and prefix of slices, and
the CPU seconds of each system. SISA with slices is `lora.isolation: none`: all layers that S3T adapts, and the head,
continue training from slice to slice. SISA without slices has one stage per shard. One LoRA on everything is the same
with one shard.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.slices import Row, write_slice
from s3t_ray.store.layout import slice_file
from s3t_ray.store.store import Store
from s3t_ray.train.job import SliceInput, StageJob
from s3t_ray.train.trainer import Trainer

NO_SECRET = "00" * 32
"""Key of the seals. It may be public, because benchmarks prove nothing to anyone."""

Prefix = tuple[int, ...]
Parts = Mapping[tuple[int, int], Sequence[Row]]
"""Rows of each (shard, slice)."""
Chains = Mapping[tuple[int, Prefix], tuple[str, ...]]
"""Stage ids, depth 1 first, by shard and prefix of slices."""


@dataclass(frozen=True)
class Settings:
    """Settings that the systems share."""

    base: Path
    task: dict[str, Any]
    layers: int
    slices: int
    lr: float
    epochs: int
    seed: int
    alpha: float = 32.0
    batch_records: int = 16
    rank: int = 16


@dataclass(frozen=True)
class TrainedSystem:
    """Chains of stage ids by (shard, prefix of slices), their config and store, and the CPU seconds of training."""

    config: Config
    chains: Chains
    cpu_seconds: float
    tokens: int


def s3t(
    settings: Settings,
    parts: Parts,
    orders: Sequence[Prefix],
    folder: Path,
    live: Chains | None = None,
    again: str = "-again",
) -> TrainedSystem:
    """Train every prefix of every order once; stage i trains the i-th group from the top.

    `live`: chains of the folder's store to keep. Only missing stages are trained, with names that end in `again`.
    """
    kept, ending = ({}, "") if live is None else (live, again)
    return _prefixes(settings, s3t_config(settings, folder), parts, orders, folder, kept, ending)


def sisa(settings: Settings, parts: Parts, folder: Path, *, slices: bool) -> TrainedSystem:
    """Train SISA. `slices`: one stage per slice, which continues all layers and the head; else one stage per shard."""
    config = sisa_config(settings, folder, slices=slices)
    if slices:
        return _prefixes(settings, config, parts, [tuple(range(settings.slices))], folder, {}, "")
    store, trainer = _opened(settings, config, folder)
    began, tokens = time.process_time(), 0
    chains: dict[tuple[int, Prefix], tuple[str, ...]] = {}
    prefix = tuple(range(settings.slices))
    for shard in sorted({shard for shard, _ in parts}):
        rows = [row for index in prefix for row in parts[shard, index]]
        job = _job(f"s{shard}", shard, [_put(store, folder, rows, shard, 0)], ())
        tokens += trainer.train(job, lambda progress: None, lambda: False).tokens
        chains[shard, prefix] = (job.stage_id,)
    return TrainedSystem(config, chains, time.process_time() - began, tokens)


def s3t_config(settings: Settings, folder: Path) -> Config:
    """Config of one shard."""
    return _config(settings, folder, settings.slices, settings.layers // settings.slices, "layers")


def sisa_config(settings: Settings, folder: Path, *, slices: bool) -> Config:
    """Config of one shard, with or without slices; it adapts the same layers as S3T."""
    own = settings.layers // settings.slices
    if slices:
        return _config(settings, folder, settings.slices, own, "none")
    return _config(settings, folder, 1, own * settings.slices, "layers")


def _prefixes(
    settings: Settings,
    config: Config,
    parts: Parts,
    orders: Sequence[Prefix],
    folder: Path,
    live: Chains,
    ending: str,
) -> TrainedSystem:
    store, trainer = _opened(settings, config, folder)
    began, tokens = time.process_time(), 0
    chains = dict(live)
    for shard in sorted({shard for shard, _ in parts}):
        inputs = {index: _put(store, folder, parts[shard, index], shard, index) for index in range(settings.slices)}
        prefixes = {order[:depth] for order in orders for depth in range(1, len(order) + 1)}
        for prefix in sorted(prefixes - {known for at, known in chains if at == shard}, key=len):
            parents = chains.get((shard, prefix[:-1]), ())
            name = f"s{shard}-{'-'.join(map(str, prefix))}{ending}"
            job = _job(name, shard, [inputs[index] for index in prefix], parents)
            tokens += trainer.train(job, lambda progress: None, lambda: False).tokens
            chains[shard, prefix] = (*parents, name)
    return TrainedSystem(config, chains, time.process_time() - began, tokens)


def _opened(settings: Settings, config: Config, folder: Path) -> tuple[Store, Trainer]:
    store = Store.open(config.storage.uri)
    return store, Trainer(config, settings.base, store, folder / "scratch")


def _config(settings: Settings, folder: Path, slices: int, layers_per_group: int, isolation: str) -> Config:
    tree: dict[str, Any] = {
        "name": "rivals",
        "seed": settings.seed,
        "shards": 1,
        "slices": slices,
        "budget": 1,
        "model": {"path": str(settings.base)},
        "task": settings.task,
        "data": {"path": "none"},
        "lora": {
            "layers_per_group": layers_per_group,
            "isolation": isolation,
            "rank": settings.rank,
            "alpha": settings.alpha,
        },
        "optimizer": {
            "lr": settings.lr,
            "epochs": settings.epochs,
            "batch_records": settings.batch_records,
            "schedule": "linear",
        },
        "engine": {"micro_batch_tokens": 1024},
        "storage": {"uri": str(folder / "run")},
    }
    return parse_config(json.dumps(tree), "the benchmark's config")


def _put(store: Store, folder: Path, rows: Sequence[Row], shard: int, index: int) -> SliceInput:
    folder.mkdir(parents=True, exist_ok=True)
    file = write_slice(folder / "slice.parquet", rows)
    path = slice_file(shard, index, file.sha256)
    if not store.exists(path):
        store.upload(file.path, path)
    return SliceInput(index, path, file.sha256, file.sha256, file.rows, NO_SECRET)


def _job(name: str, shard: int, inputs: Sequence[SliceInput], parents: tuple[str, ...]) -> StageJob:
    return StageJob(name, "recipe", "b" * 64, shard, tuple(inputs), parents, NO_SECRET)
