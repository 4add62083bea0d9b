"""Real stored hidden states and checkpoints of a deleted record are completely gone after the purge.

The states of a record depend on nothing but the record and the base, so the same bytes would be there
again if it had been left anywhere. Scheduler and shards are the real ones, in this process; so is the trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from s3t_ray.audit.audit import audit
from s3t_ray.data.slices import read_slice
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.stored_boundaries import with_boundaries
from s3t_ray.store.store import Store
from s3t_ray.train.hidden_states.hidden_manifest import HiddenManifest
from s3t_ray.train.job import StageJob, StageResult
from s3t_ray.train.trainer import Trainer
from tests.fakes import Cluster, FakeWorkers, small_config, write_records
from tests.tiny import tiny_llama

RECORDS = [(f"r{number}", None) for number in range(12)]
SHAPE: dict[str, Any] = {
    "shards": 1,
    "slices": 3,
    "budget": 2,
    "engine": {"checkpoint_steps": 2},
    "optimizer": {"batch_records": 3, "epochs": 1},
}


class TrainingWorkers(FakeWorkers):
    """One group that trains for real, in this process."""

    trainer: Trainer

    def __init__(self, store: Store) -> None:
        super().__init__(store, groups=1)

    def _publish(self, job: StageJob) -> StageResult:
        result = self.trainer.train(job, lambda progress: None, lambda: False)
        self.trained.append(job)
        return result


@pytest.fixture(params=["all", "auto"])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Cluster:
    """Every boundary stored, or by the plan the lower of the two alone, from which the upper is computed."""
    tiny_llama(tmp_path / "base", layers=6)
    write_records(tmp_path / "data.jsonl", RECORDS)
    engine = {**SHAPE["engine"], "stored_boundaries": request.param}
    storage = {"uri": str(tmp_path / "run"), "megabytes_per_second": 20.0}
    workers = {"gigaflops_per_rank": 1.0}
    config = small_config(tmp_path, **{**SHAPE, "engine": engine, "storage": storage, "workers": workers})
    cluster = Cluster(config, workers=lambda run: TrainingWorkers(run.store))
    chosen = with_boundaries(cluster.run)
    assert chosen.engine.stored_boundaries == ("all" if request.param == "all" else (2,))
    trainer = Trainer(chosen, cluster.run.base, cluster.run.store, tmp_path / "scratch")
    assert isinstance(cluster.workers, TrainingWorkers)
    cluster.workers.trainer = trainer
    return cluster


def states_of(run: Run, record_id: str) -> list[bytes]:
    """The stored hidden states of a record, one piece a boundary."""
    root = Path(run.location.storage_uri)
    (place,) = [
        (state, position)
        for state in run.ledger.slices(0)
        for position, row in enumerate(read_slice(root / str(state.file)))
        if row.id == record_id
    ]
    state, position = place
    folder = root / "hidden" / run.row.base_digest[:16] / "0" / str(state.slice) / state.digest
    found = []
    for layer in sorted(folder.iterdir()):
        manifest = HiddenManifest.model_validate_json((layer / "manifest.json").read_bytes())
        start, length = sum(manifest.lengths[:position]), manifest.lengths[position]
        tensor = safetensors.torch.load((layer / "part-0.safetensors").read_bytes())["hidden"]
        found.append(tensor[start : start + length].numpy().tobytes())
    return found


def holding(root: Path, secret: bytes) -> list[str]:
    return [str(path) for path in root.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_states_and_checkpoints_of_a_deleted_record_are_gone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, root = cluster.run, tmp_path / "run"
    cluster.settle()
    secrets = states_of(run, "r5")
    kept = states_of(run, "r6")
    assert secrets and all(len(secret) > 1000 and holding(root, secret) for secret in secrets)
    (doomed,) = deletion.preview(run, ["r5"], []).shards

    # Checkpoints of stages that the next deletion makes unwanted, as a group leaves them that dies in mid-stage.
    forget: Callable[..., None] = cluster.workers.trainer._learner.forget  # type: ignore[attr-defined]
    monkeypatch.setattr(cluster.workers.trainer._learner, "forget", lambda job: None)  # type: ignore[attr-defined]
    deletion.accept(run, ["r7"], [])
    cluster.settle()
    assert list(root.glob("checkpoints/*/*/rank-0.safetensors")), "checkpoints are really written here"
    monkeypatch.setattr(cluster.workers.trainer._learner, "forget", forget)  # type: ignore[attr-defined]

    before = {path.parent for path in root.glob("stages/*/manifest.json")}
    receipt = deletion.accept(run, ["r5"], [])
    cluster.settle()
    assert run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    for secret in secrets:
        assert holding(tmp_path, secret) == [], "not even in the trainer's own temporary folder"
    assert all(holding(root, secret) for secret in kept)
    gone = {root / "stages" / name for name in receipt.stages_pruned}
    assert gone <= before and not any(folder.exists() for folder in gone)
    pruned = set(receipt.stages_pruned)
    assert pruned.isdisjoint(path.name for path in (root / "checkpoints").glob("*"))
    assert doomed.records == 1
    assert audit(run).problems == ()
