"""Measures how slices, layers per group and rank affect a shard's model: accuracy by depth, before any deletion.

    python benchmarks/settings_curves.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl --task sst2 --work F

The engine trains one shard and one order with several seeds for each setting, on the same records. A depth is shown as
the share of the shard's records that it has learned, so that shards of 2 and of 6 slices can be compared. Writes
benchmarks/results/claims/settings-TASK.json and docs/claims/*.svg.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from benchlib.chain_outputs import chain_outputs
from benchlib.experiment_file import line, write_experiment
from benchlib.rival_parts import read_parts
from benchlib.rival_training import Settings, s3t

from s3t_ray.config.base_model import read_shape
from s3t_ray.report.page_model import ChartSeries, ReportChart, ReportSection, ReportTable


@dataclass(frozen=True)
class Variant:
    """One setting, and its accuracy [seeds x depths]."""

    slices: int
    layers_per_group: int
    rank: int
    accuracy: np.ndarray
    cpu_seconds: float

    @property
    def name(self) -> str:
        return f"{self.slices} slices of {self.layers_per_group} layers, rank {self.rank}"


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    began = time.perf_counter()
    layers = read_shape(arguments.base).layers
    plans = {
        "slices": [(slices, layers // slices, arguments.rank) for slices in (1, 2, 3, 6) if slices <= layers],
        "layers": [(3, own, arguments.rank) for own in range(1, layers // 3 + 1)],
        "rank": [(3, layers // 3, rank) for rank in (4, arguments.rank, 64)],
    }
    known: dict[tuple[int, int, int], Variant] = {}
    for setting in dict.fromkeys(each for plan in plans.values() for each in plan):
        known[setting] = _variant(arguments, *setting)
        print(known[setting].name, known[setting].accuracy.mean(0).round(4).tolist(), flush=True)
    sections = (_section(arguments, {name: [known[each] for each in plan] for name, plan in plans.items()}),)
    title = f"Slices, layers and rank, {arguments.task}"
    print(write_experiment(f"settings-{arguments.task}", title, sections, time.perf_counter() - began).name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--task", required=True, help="one of `task.benchmark`")
    parser.add_argument("--records", type=int, default=300, help="of the shard")
    parser.add_argument("--dev-records", type=int, default=436)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.shards = 1
    return arguments


def _variant(arguments: argparse.Namespace, slices: int, layers_per_group: int, rank: int) -> Variant:
    rows, seconds = [], 0.0
    for seed in range(arguments.seeds):
        arguments.slices = slices
        contents, parts = read_parts(arguments, seed)
        settings = Settings(
            base=arguments.base,
            task={"benchmark": arguments.task, "max_tokens": 128},
            layers=slices * layers_per_group,
            slices=slices,
            lr=arguments.lr,
            epochs=arguments.epochs,
            seed=seed,
            rank=rank,
        )
        # rsLoRA's factor is alpha / sqrt(rank): the same for every rank.
        settings = replace(settings, alpha=settings.alpha * (rank / arguments.rank) ** 0.5)
        order = tuple(range(slices))
        system = s3t(settings, parts, [order], arguments.work / f"{slices}-{layers_per_group}-{rank}-{seed}")
        chains = [system.chains[0, order[:depth]] for depth in range(1, slices + 1)]
        found, labels = chain_outputs(system.config, arguments.base, contents, chains)
        rows.append([float((found[chain].argmax(1) == labels).mean()) for chain in chains])
        seconds += system.cpu_seconds / arguments.seeds
    return Variant(slices, layers_per_group, rank, np.array(rows), seconds)


def _section(arguments: argparse.Namespace, found: Mapping[str, Sequence[Variant]]) -> ReportSection:
    titles = {"slices": "the number of slices", "layers": "layers per group", "rank": "the rank"}
    charts = tuple(
        ReportChart(
            stem=f"settings-{arguments.task}-{name}",
            title=f"Accuracy on {arguments.task} by {titles[name]}",
            x_label="share of the shard's records learned",
            y_label="accuracy on the dev set",
            series=tuple(_series(variant) for variant in variants),
            caption=f"One shard of {arguments.records} records; bands: 95% over {arguments.seeds} seeds.",
        )
        for name, variants in found.items()
    )
    every = list(dict.fromkeys(variant.name for variants in found.values() for variant in variants))
    by_name = {variant.name: variant for variants in found.values() for variant in variants}
    table = ReportTable(
        stem=f"settings-{arguments.task}-table",
        title="Accuracy by depth",
        columns=("setting", "depth 1", "last depth", "standard error", "CPU seconds"),
        rows=tuple(
            (
                name,
                float(by_name[name].accuracy[:, 0].mean()),
                float(by_name[name].accuracy[:, -1].mean()),
                float(by_name[name].accuracy[:, -1].std(ddof=1) / arguments.seeds**0.5) if arguments.seeds > 1 else 0.0,
                by_name[name].cpu_seconds,
            )
            for name in every
        ),
        caption="Standard error over seeds, of the last depth.",
    )
    return ReportSection(title="", charts=charts, tables=(table,))


def _series(variant: Variant) -> ChartSeries:
    shares = [depth / variant.slices for depth in range(1, variant.slices + 1)]
    mean, seeds = variant.accuracy.mean(0), len(variant.accuracy)
    error = 1.96 * variant.accuracy.std(0, ddof=1) / seeds**0.5 if seeds > 1 else np.zeros(len(mean))
    return line(variant.name, shares, mean.tolist(), (mean - error).tolist(), (mean + error).tolist())


if __name__ == "__main__":
    main()
