"""A deleted image is completely gone after its purge, and the run is as if it had never existed.

Scheduler and shards are the real ones, in this process; so is the trainer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.slices import read_slice
from s3t_ray.ledger.values import DeletionState, Reach
from s3t_ray.run import deletion
from s3t_ray.store.layout import stage_folder
from tests.e2e.train.training_workers import trained_run
from tests.fakes import Cluster, adapters
from tests.images import LABELS, encoded, picture, png
from tests.tiny import tiny_vit

KEPT = {f"i{n}": (png(n, LABELS[n % 2]), LABELS[n % 2]) for n in range(10)}
ORIGINAL = picture(50, side=64)
DOOMED = {"photo": (encoded(ORIGINAL), "square"), "copy": (encoded(ORIGINAL), "square")}
ALIKE = {"smaller": (encoded(ORIGINAL.resize((40, 40)), "JPEG", quality=70), "stripes")}


def config_of(folder: Path, images: Mapping[str, tuple[bytes, str]]) -> Config:
    tiny_vit(folder / "base", layers=4)
    rows = [{"id": name, "image": data, "label": label} for name, (data, label) in images.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    document: dict[str, Any] = {
        "name": "pictures",
        "shards": 1,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "task": {"kind": "image_classification", "labels": list(LABELS)},
        "data": {"path": str(folder / "data.parquet"), "partition_key": "seed"},
        "lora": {"layers_per_group": 1, "rank": 4},
        "optimizer": {"epochs": 1, "batch_records": 4, "lr": 0.01},
        "storage": {"uri": str(folder / "run")},
    }
    return parse_config(json.dumps(document), "test")


def trained(folder: Path, images: Mapping[str, tuple[bytes, str]]) -> Cluster:
    folder.mkdir(exist_ok=True)
    return trained_run(config_of(folder, images), folder / "scratch")


def holding(root: Path, wanted: bytes) -> list[Path]:
    """Files of the run's storage that hold these bytes, plain or in base64, packed in a slice or not."""
    spelled = base64.b64encode(wanted)
    slices = {path: b"".join(row.content.encode() for row in read_slice(path)) for path in root.rglob("*.parquet")}
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} | slices
    return [path for path, data in files.items() if wanted in data or spelled in data]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return trained(tmp_path_factory.mktemp("pictures"), {**KEPT, **DOOMED, **ALIKE})


def test_equal_images_and_those_that_look_alike_are_named(cluster: Cluster) -> None:
    found = deletion.preview(cluster.run, ["photo"], []).likeness
    assert found is not None and found.near_duplicates is not None
    assert (found.duplicates.records, found.near_duplicates.records) == (1, 1)


def test_a_deleted_image_is_gone_and_the_run_is_one_that_never_saw_it(cluster: Cluster, tmp_path: Path) -> None:
    run, root = cluster.run, Path(cluster.run.location.storage_uri)
    doomed, kept = encoded(ORIGINAL), KEPT["i3"][0]
    assert holding(root, doomed) and holding(root, kept)
    before = {stage.id for stage in run.ledger.stages() if stage.state == "live"}
    receipt = deletion.accept(run, ["photo"], [], Reach.NEAR_DUPLICATES)
    assert receipt.records == 3
    cluster.settle()
    assert run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert holding(root, doomed) == holding(root, ALIKE["smaller"][0]) == [] and holding(root, kept)
    gone = before - {stage.id for stage in run.ledger.stages() if stage.state == "live"}
    assert gone and not any((root / stage_folder(name)).exists() for name in gone)
    assert audit(run).problems == ()
    fresh = trained(tmp_path / "fresh", KEPT)
    assert adapters(run) == adapters(fresh.run)
