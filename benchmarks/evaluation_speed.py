"""Compares the cost of evaluating held-out records with the arithmetic that it cannot avoid.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl

Trains two shards of three depths on a few records of SST-2, then evaluates the dev set as `s3t eval` does: every shard
at every depth. The floor is one pass of the same base in plain transformers, in padded batches sorted by length, scaled
by the layers that the rows of all depths run through, relative to one pass. Out: CPU seconds of both and their ratios,
from alternating runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchlib.encoder_run import config_of, train_chains
from transformers import AutoModel, AutoTokenizer

from s3t_ray.config.load import dump_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.ensemble.replica import Replica

BATCH = 32
TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--records", type=int, default=60, help="training records; does not affect the result")
    given = parser.parse_args()
    given.task, given.shards, given.slices, given.layers_per_group, given.epochs, given.lr = "sst2", 2, 3, 1, 1, 1e-3
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(given, Path(folder), "store")
        chains, _, _ = train_chains(config, given.base, Path(folder), given.records)
        replica = Replica(dump_config(config), str(given.base), config.storage.uri, 1)
        replica.set_live(1, chains)
        held_out = config.data.model_copy(update={"path": str(given.dev)})
        contents = [record.content for record in read_records(held_out, config.task)]
        model: Any = AutoModel.from_pretrained(given.base, dtype=torch.float32)
        passes = layer_passes(config, model.config.num_hidden_layers)
        batches = padded_batches(given.base, contents, config.task.max_tokens)
        judged, plain = [], []
        for _ in range(TURNS):
            judged.append(cpu_seconds(lambda: replica.evaluate(contents)))
            plain.append(cpu_seconds(lambda: run(model, batches)))
    own, one = statistics.median(judged), statistics.median(plain)
    print(f"{len(contents)} records, {sum(passes)} layer passes for {len(passes)} layers: {passes}")
    print(f"evaluation: {' '.join(f'{each:.1f}' for each in judged)} CPU seconds")
    print(f"one plain padded pass: {' '.join(f'{each:.1f}' for each in plain)} CPU seconds")
    print(f"evaluation / one plain pass: {own / one:.2f}")
    print(f"evaluation / floor: {own / (one * sum(passes) / len(passes)):.2f}")


def layer_passes(config: Config, layers: int) -> list[int]:
    """Rows that run through each layer: every chain has its own row from its lowest adapter upward; below it, all share
    one row of the base."""
    group = config.lora.layers_per_group
    starts = [layers - depth * group for depth in range(1, config.slices + 1) for _ in range(config.shards)]
    return [sum(start <= layer for start in starts) + any(start > layer for start in starts) for layer in range(layers)]


def padded_batches(base: Path, contents: Sequence[str], most: int) -> list[Any]:
    """The sentences as plain transformers takes them, sorted by length, BATCH per batch."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = sorted(
        (json.loads(content)["text"] for content in contents), key=lambda text: len(tokenizer(text).input_ids)
    )
    return [
        tokenizer(texts[at : at + BATCH], padding=True, truncation=True, max_length=most, return_tensors="pt")
        for at in range(0, len(texts), BATCH)
    ]


def run(model: Any, batches: Sequence[Any]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
