"""Trains the rows of TOFU's table: one LoRA and S3T, before and after a deletion of authors, and approximate methods.

In: rows to keep and to forget, training settings. Out: PEFT folders by row of the table, with their cost. S3T is healed
from the stages that survive the deletion, and trained a second time without the authors, to compare the bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchlib.approximate_unlearning import Method, unlearn
from benchlib.rival_training import Chains, Parts, Prefix, Settings, TrainedSystem, s3t, s3t_config, sisa
from benchlib.tofu_data import author_of, content_of, one_shard, parts_of
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.store.layout import stage_folder
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.store import Store
from s3t_ray.train.adapters import export_adapter

T = TypeVar("T")

METHODS: tuple[Method, ...] = ("gradient ascent", "gradient difference", "NPO")
ORDERS: tuple[Prefix, ...] = ((0, 1), (1, 0))
WHOLE: Prefix = ORDERS[0]
Rows = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Contender:
    """One row: the adapters that answer together, and what it took to come there from the model before."""

    folders: tuple[Path, ...]
    pruned_seconds: float | None = None  # until nothing answers that saw the authors; None: there is no such moment
    restored_seconds: float | None = None  # until the model is whole again
    cpu_seconds: float | None = None  # of training
    same_bytes: bool | None = None  # as a training that never saw them; None: nothing to compare with


@dataclass(frozen=True)
class Task:
    """What the rows share."""

    settings: Settings
    retain: Rows
    forget: Rows
    batched: int  # authors of `retain` that some rows delete together with `forget`
    shards: int
    work: Path

    @property
    def everything(self) -> Rows:
        return (*self.retain, *self.forget)

    @property
    def fewer(self) -> Rows:
        """`retain` without its last `batched` authors."""
        authors = sorted({author_of(row) for row in self.retain})
        return [row for row in self.retain if author_of(row) in authors[: len(authors) - self.batched]]


def train_all(task: Task) -> tuple[dict[str, Contender], dict[str, Contender]]:
    """Every row of the table by name; and the rows after the forgotten authors were deleted together with more."""
    found = {"base": Contender(())}
    found["one LoRA on all"] = _one(task, task.everything, "one")
    found["one LoRA, retrained"] = _one(task, task.retain, "again")
    before, wall = _timed(lambda: s3t(task.settings, _parts(task, task.everything), ORDERS, task.work / "s3t"))
    found |= _s3t_rows(task, before, wall)
    for number, method in enumerate(METHODS):
        found[method] = _approximate(task, method, found["one LoRA on all"].folders[0], task.work / f"method{number}")
    return found, _batched_rows(task, before)


def _batched_rows(task: Task, before: TrainedSystem) -> dict[str, Contender]:
    kept = _parts(task, task.fewer)
    live = _left(before, _parts(task, task.everything), kept)
    healed = s3t(task.settings, kept, ORDERS, task.work / "s3t", live, "-batch")
    return {
        "one LoRA, retrained": _one(task, task.fewer, "fewer"),
        "S3T, after the receipt": Contender(_exports(before, live, task, "batch-left")),
        "S3T, healed": Contender(_exports(healed, healed.chains, task, "batch-healed")),
    }


def _one(task: Task, rows: Rows, name: str) -> Contender:
    """One LoRA on everything: until it is trained again, the old one would have to be switched off."""
    parts = one_shard(_parts(task, rows))
    system, wall = _timed(lambda: sisa(task.settings, parts, task.work / name, slices=False))
    folders = _exports(system, system.chains, task, f"export-{name}", shards=1)
    return Contender(folders, wall, wall, system.cpu_seconds)


def _s3t_rows(task: Task, before: TrainedSystem, whole_wall: float) -> dict[str, Contender]:
    kept = _parts(task, task.retain)
    live = _left(before, _parts(task, task.everything), kept)
    pruned = _prune_seconds(task, before, live)
    healed, wall = _timed(lambda: s3t(task.settings, kept, ORDERS, task.work / "s3t", live))
    fresh, fresh_wall = _timed(lambda: s3t(task.settings, kept, ORDERS, task.work / "fresh"))
    same = _same_bytes(healed, fresh)
    return {
        "S3T, whole": Contender(
            _exports(before, before.chains, task, "export-s3t"), None, whole_wall, before.cpu_seconds, False
        ),
        "S3T, after the receipt": Contender(_exports(before, live, task, "export-left"), pruned, None, 0.0),
        "S3T, healed": Contender(
            _exports(healed, healed.chains, task, "export-healed"), pruned, wall, healed.cpu_seconds, same
        ),
        "S3T, never saw them": Contender(
            _exports(fresh, fresh.chains, task, "export-fresh"), None, fresh_wall, fresh.cpu_seconds, same
        ),
    }


def _approximate(task: Task, method: Method, adapter: Path, out: Path) -> Contender:
    gone, stays = ([content_of(row["question"], row["answer"]) for row in rows] for rows in (task.forget, task.retain))
    settings = task.settings
    words = s3t_config(settings, task.work).task
    began = time.process_time()
    _, wall = _timed(lambda: unlearn(method, settings.base, adapter, words, gone, stays, out, settings.lr / 5, 3))
    return Contender((out,), wall, wall, time.process_time() - began)


def _parts(task: Task, rows: Rows) -> Parts:
    return parts_of(rows, task.shards)


def _left(system: TrainedSystem, before: Parts, after: Parts) -> Chains:
    """The chains that no deletion has struck."""
    hit = {place for place, rows in before.items() if rows != after[place]}
    return {key: chain for key, chain in system.chains.items() if not any((key[0], at) in hit for at in key[1])}


def _prune_seconds(task: Task, system: TrainedSystem, live: Chains) -> float:
    """What the serving ensemble takes to let go of the struck stages."""
    config = system.config.model_copy(update={"shards": task.shards})
    ensemble = Ensemble(config, task.settings.base, Store.open(config.storage.uri), 1)
    ensemble.set_live(1, {shard: system.chains[shard, WHOLE] for shard in range(task.shards)})
    kept = {name for chain in live.values() for name in chain}
    return _timed(lambda: ensemble.prune(2, kept))[1]


def _deepest(chains: Chains, shard: int) -> Prefix:
    prefixes = [order[:depth] for order in ORDERS for depth in range(1, len(order) + 1)]
    return max((prefix for prefix in prefixes if (shard, prefix) in chains), key=len, default=())


def _exports(
    system: TrainedSystem, chains: Chains, task: Task, name: str, shards: int | None = None
) -> tuple[Path, ...]:
    """The deepest of `chains` in each shard as PEFT folders; none of a shard without one."""
    store = Store.open(system.config.storage.uri)
    found = []
    for shard in range(shards or task.shards):
        prefix = _deepest(chains, shard)
        if prefix:
            found.append(export_adapter(store, chains[shard, prefix], task.work / f"{name}-{shard}"))
    return tuple(found)


def _same_bytes(one: TrainedSystem, other: TrainedSystem) -> bool:
    """Whether every adapter of the two is the same, byte for byte."""
    stores = [Store.open(system.config.storage.uri) for system in (one, other)]
    return all(
        stores[0].read_bytes(f"{stage_folder(one.chains[key][-1])}/{ADAPTER_FILE}")
        == stores[1].read_bytes(f"{stage_folder(other.chains[key][-1])}/{ADAPTER_FILE}")
        for key in other.chains
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result and the seconds on the clock."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began
