"""A run without data: its ledger full of records, every stage accepted, no file written and nothing trained.

For measuring the ledger's side of a deletion at any size in seconds. In: sizes. Out: an open run,
whose deletions are real and durable. Its base model is a folder that only looks like one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.ledger.values import RecordEntry
from s3t_ray.runtime.run import Run

ADAPTER = "0" * 64
"""Stands for the digest of an adapter that nobody trained."""


@dataclass(frozen=True)
class Sizes:
    """Of a synthetic run."""

    records: int
    shards: int
    slices: int = 6
    budget: int = 6


def record_id(number: int) -> str:
    return f"record-{number:09d}"


def make_run(folder: Path, sizes: Sizes, ledger_url: str | None = None) -> Run:
    """Begin a run in `folder`, with `sizes.records` records over its slices and every stage live."""
    run = Run.create(_config(folder, sizes, ledger_url))
    run.ledger.ingest(run.describe(), _entries(run, sizes))
    epoch = run.ledger.take_lease("benchmark")
    for shard in range(sizes.shards):
        plan = run.plan(shard)
        digests = {state.slice: state.digest for state in run.ledger.slices(shard)}
        for stage in sorted(plan.stages.values(), key=lambda stage: stage.depth):
            run.ledger.accept_stage(epoch, stage, ADAPTER, digests)
    return run


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


def _config(folder: Path, sizes: Sizes, ledger_url: str | None) -> Config:
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
    (base / "model.safetensors").write_bytes(b"")
    document = {
        "name": "benchmark",
        "shards": sizes.shards,
        "slices": sizes.slices,
        "budget": sizes.budget,
        "model": {"path": str(base)},
        "data": {"path": "nothing.jsonl", "subject_field": "subject"},
        "lora": {"layers_per_group": 1},
        "storage": {"uri": str(folder / "run")},
        "ledger": {"url": ledger_url},
    }
    return parse_config(json.dumps(document), "the benchmark")
