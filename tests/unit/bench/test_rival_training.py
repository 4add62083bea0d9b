"""The systems of the quality curves on a tiny base: a healed S3T is the same as one that never saw the records."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from benchlib.rival_training import Parts, Settings, TrainedSystem, s3t, sisa
from benchlib.tiny_base import tiny_base

from s3t_ray.data.slice_file import Row
from s3t_ray.store.layout import stage_folder
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.store import Store

ORDERS = ((0, 1), (1, 0))


def row(name: str) -> Row:
    content = json.dumps({"instruction": f"say {name}", "input": "", "output": f"this is {name}"})
    return Row(name, content, hashlib.sha256(content.encode()).digest())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), 4)


def settings(base: Path, lr: float) -> Settings:
    return Settings(base, {"max_tokens": 256}, layers=4, slices=2, lr=lr, epochs=1, seed=3)


def adapter(system: TrainedSystem, shard: int, prefix: tuple[int, ...]) -> bytes:
    name = system.chains[shard, prefix][-1]
    return Store.open(system.config.storage.uri).read_bytes(f"{stage_folder(name)}/{ADAPTER_FILE}")


PARTS: Parts = {(shard, index): [row(f"{shard}{index}{n}") for n in range(3)] for shard in (0, 1) for index in (0, 1)}


def test_sisa_without_slices_has_one_stage_per_shard(base: Path, tmp_path: Path) -> None:
    found = sisa(settings(base, 1e-3), PARTS, tmp_path, slices=False)
    assert sorted(found.chains) == [(0, (0, 1)), (1, (0, 1))]


def test_healed_is_byte_for_byte_what_never_saw_the_record(base: Path, tmp_path: Path) -> None:
    kept = {**PARTS, (0, 1): PARTS[0, 1][1:]}
    before = s3t(settings(base, 1e-2), PARTS, ORDERS, tmp_path / "run")
    live = {key: chain for key, chain in before.chains.items() if key[0] == 1 or 1 not in key[1]}
    healed = s3t(settings(base, 1e-2), kept, ORDERS, tmp_path / "run", live)
    fresh = s3t(settings(base, 1e-2), kept, ORDERS, tmp_path / "fresh")
    assert len(before.chains) == 8 and len(live) == 5
    assert healed.tokens < fresh.tokens
    assert healed.chains.keys() == fresh.chains.keys()
    for shard, prefix in fresh.chains:
        assert adapter(healed, shard, prefix) == adapter(fresh, shard, prefix)
    assert adapter(before, 0, (0, 1)) != adapter(fresh, 0, (0, 1))
