"""A small run for the tests of the training engine: a tiny base, a local store with slices, and jobs to train."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from s3t_ray.config.schema import Config
from s3t_ray.data.slices import Row, write_slice
from s3t_ray.store.store import Store
from s3t_ray.train.job import Progress, SliceInput, StageJob, StageResult
from s3t_ray.train.trainer import Trainer
from tests.tiny import tiny_bert, tiny_llama

RECIPE = "recipe"
SEAL_KEY = "5e" * 32
BASE = "b" * 64
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class Lab:
    """One run of one shard with three slices."""

    root: Path
    config: Config
    base: Path
    store: Store
    slices: tuple[SliceInput, ...]

    def trainer(self, rank: int = 0, world: int = 1, init_method: str | None = None) -> Trainer:
        return Trainer(self.config, self.base, self.store, self.root / f"scratch-{rank}", rank, world, init_method)

    def job(self, name: str, slices: Sequence[int], parents: Sequence[str] = ()) -> StageJob:
        return StageJob(name, RECIPE, BASE, 0, tuple(self.slices[index] for index in slices), tuple(parents), SEAL_KEY)

    def adapter(self, name: str) -> bytes:
        return self.store.read_bytes(f"stages/{name}/{ADAPTER}")

    def tensors(self, name: str) -> dict[str, Any]:
        return safetensors.torch.load(self.adapter(name))


def save_lab(lab: Lab) -> Path:
    """Save what another process needs to open the same lab. Returns its folder."""
    saved = {
        "config": lab.config.model_dump(mode="json"),
        "base": str(lab.base),
        "slices": [asdict(p) for p in lab.slices],
    }
    (lab.root / "lab.json").write_text(json.dumps(saved))
    return lab.root


def load_lab(root: Path) -> Lab:
    saved = json.loads((root / "lab.json").read_text())
    config = Config(**saved["config"])
    slices = tuple(SliceInput(**piece) for piece in saved["slices"])
    return Lab(root, config, Path(saved["base"]), Store.open(config.storage.uri), slices)


def train(
    trainer: Trainer,
    job: StageJob,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StageResult:
    return trainer.train(job, on_progress, should_stop)


def train_chain(lab: Lab, trainer: Trainer, prefix: str, slices: Sequence[int] = (0, 1, 2)) -> list[str]:
    """Train stages 1..len(slices) and return their ids."""
    names: list[str] = []
    for depth in range(1, len(slices) + 1):
        names.append(train(trainer, lab.job(f"{prefix}{depth}", slices[:depth], names)).stage_id)
    return names


def make_lab(root: Path, *, base: Path | None = None, records: int = 5, layers: int = 6, **sections: Any) -> Lab:
    """A run in `root`; `sections` override parts of the config, e.g. engine={"zero_stage": 2}."""
    task = sections.get("task", {})
    classes = task.get("labels", ())
    if base is None:
        base = tiny_bert(root / "base", layers) if classes else tiny_llama(root / "base", layers)
    settings: dict[str, Any] = {
        "name": "lab",
        "shards": 1,
        "slices": 3,
        "budget": 1,
        "model": {"path": str(base)},
        "data": {"path": "unused"},
        "lora": {"layers_per_group": 2, "rank": 4},
        "optimizer": {"epochs": 1, "batch_records": 3, "lr": 1e-2},
        "engine": {"micro_batch_tokens": 256},
        "storage": {"uri": str(root / "run")},
    }
    for name, value in sections.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    config = Config(**settings)
    store = Store.open(config.storage.uri)
    slices = tuple(put_slice(store, root, index, rows(index, records, classes)) for index in range(3))
    return Lab(root, config, base, store, slices)


def rows(index: int, records: int, classes: Sequence[str] = ()) -> list[Row]:
    """Records of one slice, of different lengths."""
    return [
        Row(
            f"r{index}-{number}", content(index, number, classes), hashlib.sha256(f"{index},{number}".encode()).digest()
        )
        for number in range(records)
    ]


def content(index: int, number: int, classes: Sequence[str] = ()) -> str:
    if classes:
        return json.dumps(
            {"text": f"text {number} of {index} " * (number % 3 + 1), "label": classes[number % len(classes)]}
        )
    answer = f"it is {index + number} " * (number % 4 + 1)
    return json.dumps({"instruction": f"add {number} to {index}", "input": "", "output": answer})


def put_slice(store: Store, root: Path, index: int, records: Sequence[Row]) -> SliceInput:
    """Write a slice into the store; its digest depends on the set of records alone."""
    file = write_slice(root / "slice.parquet", records)
    digest = hashlib.sha256(b"".join(sorted(row.digest for row in records))).hexdigest()
    path = f"slices/0/{index}/{file.sha256}.parquet"
    store.upload(file.path, path)
    return SliceInput(index, path, file.sha256, digest, file.rows, SEAL_KEY)
