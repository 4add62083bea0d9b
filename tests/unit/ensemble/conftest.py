"""A tiny Llama with 2 shards x 3 stages of 2 layers each, published once; the 2 lowest layers have no adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from s3t_ray.config.schema import Config
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.store.store import Store
from tests.tiny import tiny_llama
from tests.unit.ensemble.published import config_for, publish_stage

LAYERS, PER_GROUP, SLICES, SHARDS = 8, 2, 3, 2


@dataclass(frozen=True)
class Published:
    base: Path
    store: Store
    config: Config

    def chain(self, shard: int, depth: int) -> tuple[str, ...]:
        return tuple(f"stage-{shard}-{at}" for at in range(1, depth + 1))

    def chains(self, *depths: int) -> dict[int, tuple[str, ...]]:
        return {shard: self.chain(shard, depth) for shard, depth in enumerate(depths)}

    def ensemble(self) -> Ensemble:
        return Ensemble(self.config, self.base, self.store)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("served")
    base = tiny_llama(root / "base", layers=LAYERS, hidden=32, seed=1)
    store = Store.open(str(root / "run"))
    made = Published(base, store, config_for(base, SHARDS, SLICES, PER_GROUP))
    for shard in range(SHARDS):
        for depth in range(1, SLICES + 1):
            layers = range(LAYERS - depth * PER_GROUP, LAYERS - (depth - 1) * PER_GROUP)
            name = made.chain(shard, depth)[-1]
            publish_stage(store, base, name, shard, made.chain(shard, depth - 1), layers, seed=10 * shard + depth)
    return made
