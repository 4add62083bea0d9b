"""Builds curves and tables of quality against deletions, from the outputs of every live model on a test set.

In: for each seed, the outputs of each system's models by shard and prefix; the orders; FLOPs of stages. Out: sections
of an experiment. Deletion streams are arrays; no model is trained or run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchlib.deletion_streams import (
    Order,
    ShardModels,
    healed_streams,
    hit_masks,
    mean_depths,
    scores,
    skewed_streams,
    uniform_streams,
)
from benchlib.experiment_file import line
from benchlib.rival_costs import healing_flops, training_flops
from s3t_ray.report.page_model import Cell, ChartSeries, ReportChart, ReportSection, ReportTable

STREAMS = 10_000
LONGEST = 30
"""Deletions per stream."""
HEALED_STREAMS, HEALED_DELETIONS = 500, 100
SHOWN = (0, 1, 3, 6, 12, 24)
"""Numbers of deletions in the table."""


@dataclass(frozen=True)
class System:
    """How one system is evaluated: its models, shards and orders, and the cost of its stages."""

    key: str  # key in `Seed.outputs`
    shards: int
    orders: tuple[Order, ...]
    flops: tuple[float, ...]  # of a stage in one shard, by the number of slices it learns


@dataclass(frozen=True)
class Seed:
    """Outputs of every system's models for one seed: by system, (shard, prefix) -> [N x C]."""

    outputs: Mapping[str, Mapping[tuple[int, Order], np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """Settings that all figures share."""

    task: str
    slices: int
    base_shards: int
    labels: np.ndarray
    systems: Mapping[str, System]
    caption: str


def curves(setting: Setting, seeds: Sequence[Seed]) -> ReportSection:
    """Accuracy against uniform and skewed deletions, without healing."""
    charts = []
    for name, make in (("uniform", uniform_streams), ("skewed", skewed_streams)):
        streams = make(STREAMS, LONGEST, setting.base_shards, setting.slices, 0)
        charts.append(
            ReportChart(
                stem=f"quality-{setting.task}-{name}",
                title=f"Accuracy on {setting.task} against deletions, without healing, {name}",
                x_label="deletions",
                y_label="accuracy on the test set",
                series=tuple(
                    _series(name, _unhealed(setting, seeds, system, streams))
                    for name, system in setting.systems.items()
                ),
                caption=f"Mean of {STREAMS:,} streams and {len(seeds)} seeds; bands: 95% interval of that mean, over "
                "seeds and streams together. A system whose shards are all dead answers with one class. "
                + setting.caption,
            )
        )
    return ReportSection(title="Curves", charts=tuple(charts))


def tables(setting: Setting, seeds: Sequence[Seed]) -> ReportSection:
    """Accuracy after some deletions, and the gain and cost of each healing policy."""
    return ReportSection(title="Tables", tables=(_unhealed_table(setting, seeds), _policy_table(setting, seeds)))


def _unhealed_table(setting: Setting, seeds: Sequence[Seed]) -> ReportTable:
    streams = uniform_streams(STREAMS, 300, setting.base_shards, setting.slices, 1)
    unit = _unit(setting)
    rows: list[tuple[Cell, ...]] = []
    for name, system in setting.systems.items():
        found = _unhealed(setting, seeds, system, streams[:, : SHOWN[-1]])
        mean = np.mean([values.mean(0) for values in found], axis=0)
        own = _fitted(streams, system)
        borne = float((mean_depths(hit_masks(own, system.shards), [system.orders] * system.shards) > 0).sum(1).mean())
        rows.append((name, *(float(mean[at]) for at in SHOWN), borne, _training(system) / unit))
    return ReportTable(
        stem=f"quality-{setting.task}-table",
        title=f"Accuracy after uniform deletions, without healing ({setting.task})",
        columns=("system", *(f"after {at}" for at in SHOWN), "deletions until dead", "training FLOPs"),
        rows=tuple(rows),
        caption="Training FLOPs: relative to one LoRA on everything, by the formulas of `s3t plan`. "
        f"{len(setting.labels)} test records, of which {_most_common(setting.labels):.3f} are in the most common "
        f"class. {setting.caption}",
    )


def _policy_table(setting: Setting, seeds: Sequence[Seed]) -> ReportTable:
    streams = uniform_streams(HEALED_STREAMS, HEALED_DELETIONS, setting.base_shards, setting.slices, 2)
    unit = _unit(setting)
    rows: list[tuple[Cell, ...]] = []
    for name, system in setting.systems.items():
        levels = len(system.orders[0])
        policies = {"every deletion": levels, "below half the depth": (levels + 1) // 2, "dead shards": 1}
        for policy, floor in policies.items():
            if levels == 1 and floor == 1 and policy != "every deletion":
                continue
            healing = healed_streams(_fitted(streams, system), [system.orders] * system.shards, floor)
            kept = [_scored(setting, seed, system, healing.masks) for seed in seeds]
            cost = healing_flops(system.orders, system.flops)[healing.healed].sum(axis=(1, 2)) / HEALED_DELETIONS
            events = (healing.healed > 0).sum(axis=(1, 2)).mean() / HEALED_DELETIONS
            spread = np.array([values[:, 1:].mean() for values in kept])
            error = float(spread.std(ddof=1) / np.sqrt(len(spread))) if len(spread) > 1 else 0.0
            rows.append((name, policy, float(spread.mean()), error, float(events), float(cost.mean() / unit)))
    return ReportTable(
        stem=f"quality-{setting.task}-policies",
        title=f"Accuracy while {HEALED_DELETIONS} uniform deletions are healed by each policy ({setting.task})",
        columns=("system", "healed", "mean accuracy", "standard error", "healings per deletion", "FLOPs per deletion"),
        rows=tuple(rows),
        caption="FLOPs per deletion: relative to one training of one LoRA on everything. A healed shard answers as "
        "before the deletion: the effect of its missing record is ignored. Standard error over seeds.",
    )


def _unit(setting: Setting) -> float:
    return next(_training(system) for system in setting.systems.values() if system.key == "one")


def _training(system: System) -> float:
    return system.shards * training_flops(system.orders, system.flops)


def _fitted(streams: np.ndarray, system: System) -> np.ndarray:
    """The streams mapped to this system: one shard, or no slices, means fewer places."""
    shards = streams[..., 0] % system.shards
    slices = streams[..., 1] if len(system.orders[0]) > 1 else np.zeros_like(shards)
    return np.stack([shards, slices], axis=-1)


def _unhealed(setting: Setting, seeds: Sequence[Seed], system: System, streams: np.ndarray) -> list[np.ndarray]:
    masks = hit_masks(_fitted(streams, system), system.shards)
    return [_scored(setting, seed, system, masks) for seed in seeds]


def _scored(setting: Setting, seed: Seed, system: System, masks: np.ndarray) -> np.ndarray:
    known = seed.outputs[system.key]
    if len(system.orders[0]) == 1:  # one stage per shard, named after all its slices
        models = [
            ShardModels(((0,),), {(0,): next(value for (at, _), value in known.items() if at == shard)})
            for shard in range(system.shards)
        ]
    else:
        models = [
            ShardModels(system.orders, {prefix: value for (at, prefix), value in known.items() if at == shard})
            for shard in range(system.shards)
        ]
    return scores(masks, models, _accuracy(setting.labels))


def _accuracy(labels: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda mean: float((mean.argmax(1) == labels).mean())


def _most_common(labels: np.ndarray) -> float:
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def _series(name: str, values: Sequence[np.ndarray]) -> ChartSeries:
    """Mean over streams and seeds; the interval combines the spread of seeds and the standard error of streams."""
    means = np.array([value.mean(0) for value in values])
    mean = means.mean(0)
    of_streams = np.mean([value.std(0) / np.sqrt(len(value)) for value in values], axis=0)
    of_seeds = means.std(0, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    error = 1.96 * np.hypot(of_streams, of_seeds)
    steps = np.arange(len(mean), dtype=float)
    return line(name, steps.tolist(), mean.tolist(), (mean - error).tolist(), (mean + error).tolist())
