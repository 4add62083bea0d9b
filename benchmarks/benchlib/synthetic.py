"""Makes a run without data: a ledger with records and optionally accepted stages, but no files or weights.

It measures the ledger's part of a deletion at any size within seconds. In: sizes. Out: an open run with real, durable
deletions. Its base model is only a placeholder folder. Stages and files bypass the ledger's own methods, which would
check and commit them one by one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from sqlalchemy import insert, update

from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.ledger.tables import SLICES, STAGES
from s3t_ray.ledger.values import RecordEntry, StageState
from s3t_ray.run.run import Run

ADAPTER = "0" * 64


def adapter_of(stage_id: str) -> str:
    """The digest of a made-up adapter, different for each stage as for real ones."""
    return hashlib.sha256(stage_id.encode()).hexdigest()


"""The digest of a made-up adapter."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a synthetic run."""

    records: int
    shards: int
    slices: int = 6
    budget: int = 6


def record_id(number: int) -> str:
    return f"record-{number:09d}"


def make_run(folder: Path, sizes: Sizes, ledger_url: str | None = None, **settings: object) -> Run:
    """Start a run in `folder`, with `sizes.records` records across its slices and no trained stages.

    `settings`: further sections of its config.
    """
    run = begin_run(folder, sizes, ledger_url, **settings)
    run.ledger.ingest(run.describe(), _entries(run, sizes))
    with run.ledger._database.write() as tx:
        tx.connection.execute(
            update(SLICES).values(file="none.parquet", file_sha256=ADAPTER, file_digest=SLICES.c.digest)
        )
    return run


def begin_run(folder: Path, sizes: Sizes, ledger_url: str | None = None, **settings: object) -> Run:
    """The run of `make_run` without records; ignores `sizes.records`."""
    return Run.create(_config(folder, sizes, ledger_url, settings))


def accept_all(run: Run) -> int:
    """Write every planned stage to the ledger as accepted, in bulk. Returns their number."""
    total = 0
    for shard in range(run.row.shards):
        rows = [
            {
                "id": stage.id,
                "shard": shard,
                "slices": json.dumps(stage.slices),
                "ancestors": json.dumps(stage.ancestors),
                "state": str(StageState.LIVE),
                "adapter_sha256": adapter_of(stage.id),
                "accepted_at": "2026-01-01T00:00:00.000000+00:00",
            }
            for stage in sorted(run.plan(shard).stages.values(), key=lambda stage: stage.depth)
        ]
        with run.ledger._database.write() as tx:
            for row in rows:
                row["accepted"] = tx.next_sequence()
            tx.connection.execute(insert(STAGES), rows)
        total += len(rows)
    return total


def _entries(run: Run, sizes: Sizes) -> Iterator[RecordEntry]:
    keys = run.keys
    for number in range(sizes.records):
        name = record_id(number)
        shard, index = number % sizes.shards, number // sizes.shards % sizes.slices
        yield RecordEntry(
            keys.id_hmac(name),
            keys.subject_hmac(f"person-{number // 5}"),
            keys.content_hmac(name),
            keys.record_digest(name, name),
            shard,
            index,
        )


def _config(folder: Path, sizes: Sizes, ledger_url: str | None, settings: dict[str, object]) -> Config:
    base = folder / "base"
    base.mkdir(parents=True)
    shape = {
        "model_type": "llama",
        "num_hidden_layers": sizes.slices,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
    }
    (base / "config.json").write_text(json.dumps(shape))
    (base / "model.safetensors").write_bytes(save({"weight": np.zeros(4, dtype=np.float32)}))
    document = {
        "name": "benchmark",
        "shards": sizes.shards,
        "slices": sizes.slices,
        "budget": sizes.budget,
        "model": {"path": str(base)},
        "data": {"path": "nothing.jsonl", "subject_field": "subject", "partition_key": "seed"},
        "lora": {"layers_per_group": 1},
        "storage": {"uri": str(folder / "run")},
        "ledger": {"url": ledger_url},
        **settings,
    }
    return parse_config(json.dumps(document), "the benchmark")
