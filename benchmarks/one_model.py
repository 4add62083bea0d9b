"""Compares one merged model with m models: the mean of the shards' adapters against the mean of their logits.

    python benchmarks/one_model.py --data TOFU_FOLDER --work FOLDER [--base MODEL_FOLDER] [--shards 2 5 10]

S3T on questions about authors, for each number of shards and learning rate, before deletions and after one deletion in
every other shard. Measures the loss per answer token on held-out authors: of the ensemble of logits, of the merged
adapter of rank m r, of single shards, and of the base. Writes benchmarks/results/claims/one-model.json.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchlib.experiment_file import line, write_experiment
from benchlib.language_models import LanguageModels
from benchlib.rival_training import Prefix, Settings, TrainedSystem, s3t
from benchlib.small_base import small_base
from benchlib.tofu_data import BASE_AUTHORS, author_of, content_of, read_rows, text_of

from s3t_ray.config.base_model import read_shape
from s3t_ray.data.slice_file import Row
from s3t_ray.report.page_model import ReportChart, ReportSection, ReportTable
from s3t_ray.store.store import Store
from s3t_ray.train.adapters import export_adapter, export_merged_adapter

FIRST_AUTHOR = 100
HELD_OUT = 60
"""Questions."""


@dataclass(frozen=True)
class Found:
    """Mean losses of an answer's token, in nats, and the standard error of (merged - ensemble) over questions."""

    shards: int
    lr: float
    moment: str
    base: float
    single: float
    ensemble: float
    merged: float
    error: float

    @property
    def kept(self) -> float:
        """Share of the ensemble's gain over the base that the one model has."""
        return (self.base - self.merged) / (self.base - self.ensemble)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="TOFU's JSONL files")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--base", type=Path, help="a causal language model; default: a small one, trained here")
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3, 5e-3])
    parser.add_argument("--authors", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    began = time.perf_counter()
    full = read_rows(arguments.data / "full.jsonl")
    base = arguments.base or small_base(
        arguments.work / "base", [text_of(row) for row in full if author_of(row) in BASE_AUTHORS]
    )
    authors = range(FIRST_AUTHOR, FIRST_AUTHOR + arguments.authors)
    rows = [row for row in full if author_of(row) in authors]
    held_out = [
        content_of(row["question"], row["answer"]) for row in read_rows(arguments.data / "holdout10.jsonl")[:HELD_OUT]
    ]
    found: list[Found] = []
    for shards in arguments.shards:
        for lr in arguments.lr:
            settings = Settings(base, {"max_tokens": 256}, read_shape(base).layers, 2, lr, arguments.epochs, 0)
            place = arguments.work / f"m{shards}-{lr:g}"
            found += _measure(settings, rows, held_out, shards, place)
            print(found[-2], found[-1], sep="\n", flush=True)
    path = write_experiment(
        "one-model", "One model in place of m", (_section(arguments, found),), time.perf_counter() - began
    )
    print(path.name)


def _measure(
    settings: Settings, rows: list[dict[str, str]], held_out: list[str], shards: int, place: Path
) -> list[Found]:
    orders: tuple[Prefix, ...] = ((0, 1), (1, 0))
    parts: dict[tuple[int, int], list[Row]] = {}
    for at, row in enumerate(rows):
        content = content_of(row["question"], row["answer"])
        digest = hashlib.sha256(content.encode()).digest()
        parts.setdefault((at % shards, at // shards % 2), []).append(Row(row["id"], content, digest))
    system = s3t(settings, parts, orders, place)
    whole: list[Prefix] = [(0, 1)] * shards
    struck: list[Prefix] = [(1,) if shard % 2 == 0 else (0, 1) for shard in range(shards)]
    models = LanguageModels(settings.base, system.config.task)
    of_base = models.losses((), held_out)
    found = []
    for moment, prefixes in (("whole", whole), ("after deletions", struck)):
        names = _load(models, system, prefixes, place, moment.partition(" ")[0])
        ensemble, merged = (np.array(models.losses(team, held_out)) for team in (names[:-1], names[-1:]))
        singles = [np.mean(models.losses((name,), held_out)) for name in names[:-1]]
        error = float((merged - ensemble).std(ddof=1) / len(held_out) ** 0.5)
        base, single, ours, one = (float(np.mean(each)) for each in (of_base, singles, ensemble, merged))
        found.append(Found(shards, settings.lr, moment, base, single, ours, one, error))
    return found


def _load(
    models: LanguageModels, system: TrainedSystem, prefixes: Sequence[Prefix], place: Path, tag: str
) -> tuple[str, ...]:
    """Adapters of the shards, and last the merged one."""
    store = Store.open(system.config.storage.uri)
    chains = [system.chains[shard, prefix] for shard, prefix in enumerate(prefixes)]
    folders = [export_adapter(store, chain, place / f"{tag}-{shard}") for shard, chain in enumerate(chains)]
    folders.append(export_merged_adapter(store, chains, place / f"{tag}-merged"))
    for folder in folders:
        models.add(folder.name, folder)
    return tuple(folder.name for folder in folders)


def _section(arguments: argparse.Namespace, found: Sequence[Found]) -> ReportSection:
    series = []
    for lr in arguments.lr:
        for moment in ("whole", "after deletions"):
            own = [each for each in found if (each.lr, each.moment) == (lr, moment)]
            gaps = [each.merged - each.ensemble for each in own]
            errors = [1.96 * each.error for each in own]
            low, high = ([g + sign * e for g, e in zip(gaps, errors, strict=True)] for sign in (-1, 1))
            series.append(line(f"lr {lr:g}, {moment}", [each.shards for each in own], gaps, low, high))
    chart = ReportChart(
        stem="one-model",
        title="What one merged adapter loses to the ensemble",
        x_label="shards",
        y_label="loss above the ensemble, nats",
        series=tuple(series),
        from_zero=True,
        caption="Bars: 95% over held-out questions.",
    )
    table = ReportTable(
        stem="one-model-table",
        title="Held-out loss per token of an answer, nats",
        columns=(
            "shards",
            "lr",
            "moment",
            "base",
            "mean of single shards",
            "ensemble",
            "one model",
            "standard error",
            "share of the gain kept",
        ),
        rows=tuple(
            (
                each.shards,
                each.lr,
                each.moment,
                each.base,
                each.single,
                each.ensemble,
                each.merged,
                each.error,
                each.kept,
            )
            for each in found
        ),
        caption=f"{arguments.authors} of TOFU's authors, {arguments.epochs} epochs, 2 slices, rank 16; after "
        "deletions one slice of every other shard is lost. Standard error: of one model less ensemble.",
    )
    return ReportSection(title="", charts=(chart,), tables=(table,))


if __name__ == "__main__":
    main()
