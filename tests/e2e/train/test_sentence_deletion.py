"""Sentence classification: a deleted sentence leaves no trace in the run, for S3T and for SISA.

Scheduler and shards are the real ones, in this process; so is the trainer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from s3t_ray.audit.audit import audit
from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.slices import read_slice
from s3t_ray.ensemble.in_process import evaluate
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.shard_view import view_shard
from s3t_ray.store.layout import stage_folder
from s3t_ray.store.manifest import ADAPTER_FILE
from tests.e2e.train.training_workers import trained_run
from tests.fakes import adapters
from tests.tiny import tiny_bert

LABELS = ("even", "odd")
SAID = [{"id": f"said-{n}", "text": f"the number {n * 7919} is here", "label": LABELS[n % 2]} for n in range(12)]
DOOMED = SAID[5]


def config_of(folder: Path, rows: Sequence[dict[str, str]], isolation: str) -> Config:
    tiny_bert(folder / "base", layers=3)
    for name, own in (("train", rows), ("dev", SAID[:4])):
        lines = [json.dumps({**row, "id": f"{name}-{row['id']}" if name == "dev" else row["id"]}) for row in own]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    document: dict[str, Any] = {
        "name": "sentences",
        "shards": 1,
        "slices": 2,
        "budget": 1 if isolation == "none" else 2,
        "model": {"path": str(folder / "base")},
        "task": {"kind": "classification", "labels": list(LABELS), "max_tokens": 64},
        "data": {
            "path": str(folder / "train.jsonl"),
            "holdout_path": str(folder / "dev.jsonl"),
            "id_field": "id",
            "partition_key": "seed",
        },
        "lora": {"layers_per_group": 1, "rank": 4, "isolation": isolation},
        "optimizer": {"epochs": 2, "batch_records": 4, "lr": 0.01},
        "storage": {"uri": str(folder / "run")},
    }
    return parse_config(json.dumps(document), "test")


def holding(root: Path, words: str) -> list[Path]:
    """Files of the run's storage that hold these words, packed in a slice or not."""
    slices = {path: b"".join(row.content.encode() for row in read_slice(path)) for path in root.rglob("*.parquet")}
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} | slices
    return [path for path, data in files.items() if words.encode() in data]


@pytest.mark.parametrize("isolation", ["layers", "none"])
def test_a_deleted_sentence_is_gone_and_the_run_is_one_that_never_saw_it(tmp_path: Path, isolation: str) -> None:
    folders = [tmp_path / name for name in ("run", "fresh")]
    for folder in folders:
        folder.mkdir()
    cluster = trained_run(config_of(folders[0], SAID, isolation), tmp_path / "scratch")
    run, root = cluster.run, Path(cluster.run.location.storage_uri)
    words = DOOMED["text"]
    assert holding(root, words)
    before = {stage.id for stage in run.ledger.stages() if stage.state == "live"}
    assert len(before) == (2 if isolation == "none" else 4)
    receipt = deletion.accept(run, [DOOMED["id"]], [])
    cluster.settle()
    assert run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert holding(root, words) == [] and holding(root, SAID[6]["text"])
    gone = before - {stage.id for stage in run.ledger.stages() if stage.state == "live"}
    assert gone and not any((root / stage_folder(name)).exists() for name in gone)
    assert audit(run).problems == ()
    fresh = trained_run(
        config_of(folders[1], [row for row in SAID if row is not DOOMED], isolation), tmp_path / "again"
    )
    assert adapters(run) == adapters(fresh.run)

    chain = view_shard(run, 0).serving
    held = [safetensors.torch.load(run.store.read_bytes(f"{stage_folder(stage)}/{ADAPTER_FILE}")) for stage in chain]
    layers = [{int(name.split(".")[5]) for name in tensors} for tensors in held]
    assert layers == ([{1, 2}, {1, 2}] if isolation == "none" else [{2}, {1}])
    assert len({entry.loss for entry in evaluate(run).by_depth}) == 3, "the base and two depths"
