"""Quality against deletions that nobody heals: S3T at each budget, SISA with and without slices, one LoRA on all data.

    python benchmarks/quality_curves.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl --task sst2 --work FOLDER

Every system is trained by the engine on the same slices, once per seed; the logits of each live model on the dev set
are kept in FOLDER, so that a second call only evaluates. Then ten thousand streams of deletions are evaluated as
arrays: bars are 95% of streams and seeds. Writes benchmarks/results/claims/quality-TASK.json and docs/claims/*.svg.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from benchlib.chain_outputs import chain_outputs
from benchlib.deletion_streams import (
    Order,
    ShardModels,
    hit_masks,
    mean_depths,
    scores,
    skewed_streams,
    uniform_streams,
)
from benchlib.experiment_file import line, write_experiment
from benchlib.rival_training import Parts, Settings, TrainedSystem, s3t, sisa

from s3t_ray.config.base_model import read_shape
from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.slices import Row
from s3t_ray.report.page_model import Cell, ChartSeries, ReportChart, ReportSection, ReportTable

STREAMS = 10_000
LONGEST = 30
"""Deletions of a stream."""
SHOWN = (0, 1, 3, 6, 12)
"""Numbers of deletions in the table."""
ONE = "one LoRA on everything"


@dataclass(frozen=True)
class Known:
    """One system under one seed: its models' outputs by shard and prefix, and what training them took."""

    outputs: dict[tuple[int, Order], np.ndarray]
    cpu_seconds: float
    tokens: int


def main() -> None:
    arguments = _arguments()
    began = time.perf_counter()
    every, labels = [], np.zeros(0)
    for seed in range(arguments.seeds):
        known, labels = _of_seed(arguments, seed)
        every.append(known)
    sections = (_curves(arguments, every, labels), _table(arguments, every, labels))
    title = f"Quality against deletions, {arguments.task}"
    path = write_experiment(f"quality-{arguments.task}", title, sections, time.perf_counter() - began)
    print(path.name)
    for row in sections[1].tables[0].rows:
        print("  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--task", required=True)
    parser.add_argument("--records", type=int, default=900, help="of the training file, the first")
    parser.add_argument("--dev-records", type=int, default=872)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=2)
    return parser.parse_args()


def _cyclic(slices: int) -> list[Order]:
    return [tuple((start + step) % slices for step in range(slices)) for start in range(slices)]


def _of_seed(arguments: argparse.Namespace, seed: int) -> tuple[dict[str, Known], np.ndarray]:
    """What every system says under this seed: from the work folder, or trained now."""
    folder: Path = arguments.work / f"{arguments.task}-{seed}"
    contents, parts = _read(arguments, seed)
    settings = Settings(
        base=arguments.base,
        task={"benchmark": arguments.task, "max_tokens": 128},
        layers=read_shape(arguments.base).layers,
        slices=arguments.slices,
        lr=arguments.lr,
        epochs=arguments.epochs,
        seed=seed,
    )
    whole: dict[tuple[int, int], list[Row]] = {}
    for (_, index), rows in parts.items():
        whole.setdefault((0, index), []).extend(rows)
    systems: Mapping[str, Callable[[Path], TrainedSystem]] = {
        "s3t": lambda place: s3t(settings, parts, _cyclic(arguments.slices), place),
        "sisa": lambda place: sisa(settings, parts, place, slices=True),
        "plain": lambda place: sisa(settings, parts, place, slices=False),
        "one": lambda place: sisa(settings, whole, place, slices=False),
    }
    known: dict[str, Known] = {}
    labels = np.zeros(0)
    for name, train in systems.items():
        saved = folder / f"{name}.npz"
        if not saved.is_file():
            _save(saved, train(folder / name), arguments.base, contents)
        known[name], labels = _load(saved)
        print(
            f"seed {seed}, {name}: {len(known[name].outputs)} models, {known[name].cpu_seconds:.0f} CPU s", flush=True
        )
    return known, labels


def _read(arguments: argparse.Namespace, seed: int) -> tuple[list[str], Parts]:
    """Contents of the dev set, and the training rows dealt to shards and slices by a hash of seed and id."""

    def contents(path: Path, most: int) -> list[tuple[str, str]]:
        config = _reading(arguments, path)
        return [(each.id, each.content) for each in islice(read_records(config.data, config.task), most)]

    rows = [
        Row(name, content, hashlib.sha256(content.encode()).digest())
        for name, content in contents(arguments.train, arguments.records)
    ]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed} {row.id}".encode()).digest())
    parts: dict[tuple[int, int], list[Row]] = {}
    for at, row in enumerate(rows):
        place = (at % arguments.shards, at // arguments.shards % arguments.slices)
        parts.setdefault(place, []).append(row)
    return [content for _, content in contents(arguments.dev, arguments.dev_records)], parts


def _reading(arguments: argparse.Namespace, path: Path) -> Config:
    """A config by which the rows of one file are read."""
    tree = {
        "name": "rivals",
        "shards": 1,
        "slices": 1,
        "budget": 1,
        "model": {"path": str(arguments.base)},
        "task": {"benchmark": arguments.task, "max_tokens": 128},
        "data": {"path": str(path)},
        "lora": {"layers_per_group": 1},
        "storage": {"uri": "none"},
    }
    return parse_config(json.dumps(tree), "the benchmark's config")


def _save(path: Path, system: TrainedSystem, base: Path, contents: Sequence[str]) -> None:
    found, labels = chain_outputs(system.config, base, contents, list(system.chains.values()))
    arrays: dict[str, Any] = {
        f"{shard}:{'-'.join(map(str, prefix))}": found[chain] for (shard, prefix), chain in system.chains.items()
    }
    np.savez(path, labels=labels, took=np.array([system.cpu_seconds, system.tokens]), **arrays)


def _load(path: Path) -> tuple[Known, np.ndarray]:
    with np.load(path) as arrays:
        outputs = {}
        for name in arrays.files:
            shard, found, prefix = name.partition(":")
            if found:
                outputs[int(shard), tuple(int(each) for each in prefix.split("-"))] = arrays[name]
        seconds, tokens = arrays["took"]
        return Known(outputs, float(seconds), int(tokens)), arrays["labels"]


def _models(known: Known, orders: Sequence[Order], shards: int) -> list[ShardModels]:
    return [
        ShardModels(tuple(orders), {prefix: value for (at, prefix), value in known.outputs.items() if at == shard})
        for shard in range(shards)
    ]


def _systems(arguments: argparse.Namespace) -> dict[str, tuple[str, list[Order]]]:
    """By name: whose models they are, and the orders that a shard has."""
    cyclic = _cyclic(arguments.slices)
    budgets = {f"S3T, budget {budget}": ("s3t", cyclic[:budget]) for budget in range(1, arguments.slices + 1)}
    return {**budgets, "SISA with slices": ("sisa", [tuple(range(arguments.slices))])}


def _accuracy(labels: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda mean: float((mean.argmax(1) == labels).mean())


def _whole_or_dead(known: Known, streams: np.ndarray, shards: int, labels: np.ndarray) -> np.ndarray:
    """Accuracy of systems whose shards die at their first deletion: their slices are one."""
    one = np.stack([streams[..., 0] % shards, np.zeros_like(streams[..., 1])], axis=-1)
    models = [
        ShardModels(((0,),), {(0,): next(v for (at, _), v in known.outputs.items() if at == s)}) for s in range(shards)
    ]
    return scores(hit_masks(one, shards), models, _accuracy(labels))


def _curves(arguments: argparse.Namespace, every: Sequence[Mapping[str, Known]], labels: np.ndarray) -> ReportSection:
    charts = []
    for name, make in (("uniform", uniform_streams), ("skewed", skewed_streams)):
        streams = make(STREAMS, LONGEST, arguments.shards, arguments.slices, 0)
        masks = hit_masks(streams, arguments.shards)
        series = []
        for system, (key, orders) in _systems(arguments).items():
            models = [_models(known[key], orders, arguments.shards) for known in every]
            series.append(_series(system, [scores(masks, own, _accuracy(labels)) for own in models]))
        plain = [_whole_or_dead(known["plain"], streams, arguments.shards, labels) for known in every]
        series.append(_series("SISA without slices", plain))
        one = [_whole_or_dead(known["one"], streams, 1, labels) for known in every]
        series.append(_series(ONE, one))
        charts.append(
            ReportChart(
                stem=f"quality-{arguments.task}-{name}",
                title=f"Accuracy on {arguments.task} against deletions that nobody heals, {name}",
                x_label="deletions",
                y_label="accuracy on the dev set",
                series=tuple(series),
                caption=f"Mean of {STREAMS:,} streams and {len(every)} seeds; bands: 95% interval of that mean, "
                "over seeds and streams together. A system whose shards are all dead answers with one class.",
            )
        )
    return ReportSection(title="Curves", charts=tuple(charts))


def _series(name: str, values: Sequence[np.ndarray]) -> ChartSeries:
    """Mean over streams and seeds; the interval has the seeds' spread and the streams' standard error in it."""
    means = np.array([value.mean(0) for value in values])
    mean = means.mean(0)
    of_streams = np.mean([value.std(0) / np.sqrt(len(value)) for value in values], axis=0)
    of_seeds = means.std(0, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    error = 1.96 * np.hypot(of_streams, of_seeds)
    steps = np.arange(len(mean), dtype=float)
    return line(name, steps.tolist(), mean.tolist(), (mean - error).tolist(), (mean + error).tolist())


def _table(arguments: argparse.Namespace, every: Sequence[Mapping[str, Known]], labels: np.ndarray) -> ReportSection:
    """Accuracy whole and after some deletions, deletions until all shards are dead, and what training took."""
    streams = uniform_streams(STREAMS, 200, arguments.shards, arguments.slices, 1)
    masks = hit_masks(streams, arguments.shards)
    rows: list[tuple[Cell, ...]] = []
    for system, (key, orders) in _systems(arguments).items():
        models = [_models(known[key], orders, arguments.shards) for known in every]
        found = [scores(masks[:, : SHOWN[-1] + 1], own, _accuracy(labels)) for own in models]
        borne = (mean_depths(masks, [orders] * arguments.shards) > 0).sum(1).mean()
        measured = key == "sisa" or len(orders) == arguments.slices  # the other budgets are parts of the full one
        rows.append(_row(system, found, float(borne), _cost(every, key) if measured else None))
    for system, key, shards in (("SISA without slices", "plain", arguments.shards), (ONE, "one", 1)):
        found = [_whole_or_dead(known[key], streams[:, : SHOWN[-1]], shards, labels) for known in every]
        struck = hit_masks(np.stack([streams[..., 0] % shards, 0 * streams[..., 1]], axis=-1), shards)
        borne = (struck == 0).any(2).sum(1).mean()
        rows.append(_row(system, found, float(borne), _cost(every, key)))
    table = ReportTable(
        stem=f"quality-{arguments.task}-table",
        title=f"Accuracy after deletions, uniform, nothing healed ({arguments.task})",
        columns=("system", *(f"after {at}" for at in SHOWN), "deletions until dead", "training cost"),
        rows=tuple(rows),
        caption="Training cost: CPU seconds over those of SISA without slices. "
        f"{arguments.records} records, {arguments.shards} shards of {arguments.slices} slices, "
        f"{arguments.epochs} epochs, {len(every)} seeds, {len(labels)} dev records, of which "
        f"{float((labels == 0).mean()):.3f} are of class 0.",
    )
    return ReportSection(title="Table", tables=(table,))


def _cost(every: Sequence[Mapping[str, Known]], key: str) -> float:
    """CPU seconds of a system's training over those of SISA without slices."""
    mine, first = (np.mean([known[name].cpu_seconds for known in every]) for name in (key, "plain"))
    return float(mine / first)


def _row(system: str, found: Sequence[np.ndarray], borne: float, cost: float | None) -> tuple[Cell, ...]:
    mean = np.mean([values.mean(0) for values in found], axis=0)
    return (system, *(float(mean[at]) for at in SHOWN), borne, cost)


if __name__ == "__main__":
    main()
