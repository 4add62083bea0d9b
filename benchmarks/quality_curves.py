"""Measures quality against deletions: S3T at several budgets and orders, SISA with and without slices, one LoRA.

    python benchmarks/quality_curves.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl --task sst2 --work FOLDER
    python benchmarks/quality_curves.py --base FOLDER --train TRAIN.parquet --dev TEST.parquet --task animals --work F

The engine trains every system on the same slices, once per seed. FOLDER keeps the logits of each live model on the dev
set, so that a second call only evaluates. Ten thousand deletion streams are then evaluated as arrays; error bars are
95% intervals over streams and seeds. `animals` is five classes of CIFAR-10 on a small ViT that `vision.py` trains on
the other five. Writes benchmarks/results/claims/quality-TASK.json and docs/claims/*.svg.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchlib.chain_outputs import chain_outputs
from benchlib.curve_sections import Seed, Setting, System, curves, tables
from benchlib.deletion_streams import Order
from benchlib.experiment_file import write_experiment
from benchlib.other_classes import LEARNED_BY_ENSEMBLE, make_base, take_classes
from benchlib.rival_costs import stage_flops
from benchlib.rival_parts import IMAGES, read_parts, task_of
from benchlib.rival_training import Settings, TrainedSystem, s3t, s3t_config, sisa, sisa_config

from s3t_ray.config.base_model import read_shape
from s3t_ray.data.slices import Row
from s3t_ray.plan.orders_chains import maximal_chains


@dataclass(frozen=True)
class Known:
    """One system under one seed: its models' outputs by shard and prefix, and what training them took."""

    outputs: dict[tuple[int, Order], np.ndarray]
    cpu_seconds: float
    tokens: int


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    began = time.perf_counter()
    if arguments.task == IMAGES:
        _prepare_images(arguments)
    every, labels = [], np.zeros(0)
    for seed in range(arguments.seeds):
        known, labels = _of_seed(arguments, seed)
        every.append(known)
    setting = _setting(arguments, every, labels)
    seeds = [Seed({key: known.outputs for key, known in own.items()}) for own in every]
    sections = (curves(setting, seeds), tables(setting, seeds))
    title = f"Quality against deletions, {arguments.task}"
    path = write_experiment(f"quality-{arguments.task}", title, sections, time.perf_counter() - began)
    print(path.name)
    for table in sections[1].tables:
        for row in (table.columns, *table.rows):
            print("  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True, help=f"for {IMAGES} it is made there")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--task", required=True, help=f"one of `task.benchmark`, or {IMAGES}")
    parser.add_argument("--records", type=int, default=900, help="of the training file, the first")
    parser.add_argument("--dev-records", type=int, default=872)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--rival-lr", type=float, help="of all systems but S3T: a stage of all layers may need a lower one"
    )
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--base-epochs", type=int, default=6, help=f"for {IMAGES}")
    parser.add_argument("--seeds", type=int, default=2)
    return parser.parse_args()


def _prepare_images(arguments: argparse.Namespace) -> None:
    """Make the base of the other classes, and files of the classes to learn, equally many images of each."""
    if not (arguments.base / "model.safetensors").exists():
        make_base(arguments.train, arguments.dev, arguments.base, arguments.base_epochs)
    arguments.work.mkdir(parents=True, exist_ok=True)
    classes = len(LEARNED_BY_ENSEMBLE)
    for name, most in (("train", arguments.records), ("dev", arguments.dev_records)):
        taken = arguments.work / f"{name}.parquet"
        take_classes(getattr(arguments, name), taken, most // classes)
        setattr(arguments, name, taken)


def _orders(arguments: argparse.Namespace) -> dict[str, tuple[Order, ...]]:
    """Of each S3T system: cyclic ones at budgets 1, 2, 4, ... up to the number of slices, and all chains."""
    slices = arguments.slices
    cyclic = [tuple((start + step) % slices for step in range(slices)) for start in range(slices)]
    budgets = sorted({budget for budget in (1, 2, 4, slices) if budget <= slices})
    found = {f"S3T, budget {budget}": tuple(cyclic[:budget]) for budget in budgets}
    chains = maximal_chains(slices)
    return found | ({f"S3T, {len(chains)} chains": chains} if len(chains) > slices else {})


def _settings(arguments: argparse.Namespace, seed: int) -> Settings:
    return Settings(
        base=arguments.base,
        task=task_of(arguments),
        layers=read_shape(arguments.base).layers,
        slices=arguments.slices,
        lr=arguments.lr,
        epochs=arguments.epochs,
        seed=seed,
        alpha=arguments.alpha,
        batch_records=arguments.batch,
    )


def _of_seed(arguments: argparse.Namespace, seed: int) -> tuple[dict[str, Known], np.ndarray]:
    """What every system says under this seed: from the work folder, or trained now."""
    folder: Path = arguments.work / f"{arguments.task}-{seed}"
    contents, parts = read_parts(arguments, seed)
    settings = _settings(arguments, seed)
    rivals = replace(settings, lr=arguments.rival_lr or settings.lr)
    whole: dict[tuple[int, int], list[Row]] = {}
    for (_, index), rows in parts.items():
        whole.setdefault((0, index), []).extend(rows)
    every = tuple(dict.fromkeys(order for orders in _orders(arguments).values() for order in orders))
    systems: Mapping[str, Callable[[Path], TrainedSystem]] = {
        "s3t": lambda place: s3t(settings, parts, every, place),
        "sisa": lambda place: sisa(rivals, parts, place, slices=True),
        "plain": lambda place: sisa(rivals, parts, place, slices=False),
        "one": lambda place: sisa(rivals, whole, place, slices=False),
    }
    amounts = f"{arguments.records} records, {arguments.dev_records} to evaluate, {arguments.shards} shards"
    trained_by = {name: f"{amounts}, {settings if name == 's3t' else rivals}" for name in systems}
    known: dict[str, Known] = {}
    labels = np.zeros(0)
    for name, train in systems.items():
        saved = folder / f"{name}.npz"
        if not saved.is_file():
            _save(saved, train(folder / name), arguments.base, contents, trained_by[name])
        known[name], labels = _load(saved, trained_by[name])
        print(
            f"seed {seed}, {name}: {len(known[name].outputs)} models, {known[name].cpu_seconds:.0f} CPU s", flush=True
        )
    return known, labels


def _setting(arguments: argparse.Namespace, every: Sequence[Mapping[str, Known]], labels: np.ndarray) -> Setting:
    settings, shape = _settings(arguments, 0), read_shape(arguments.base)
    nowhere = arguments.work
    tokens = every[0]["one"].tokens / arguments.records / arguments.epochs
    shards = arguments.shards
    records = arguments.records // shards
    alone = sisa_config(replace(settings, slices=arguments.slices), nowhere, slices=False)
    of_s3t = tuple(stage_flops(s3t_config(settings, nowhere), shape, records, tokens))
    of_sisa = tuple(stage_flops(sisa_config(settings, nowhere, slices=True), shape, records, tokens))
    in_order = (tuple(range(arguments.slices)),)
    systems = {name: System("s3t", shards, orders, of_s3t) for name, orders in _orders(arguments).items()}
    systems["SISA with slices"] = System("sisa", shards, in_order, of_sisa)
    systems["SISA without slices"] = System("plain", shards, ((0,),), tuple(stage_flops(alone, shape, records, tokens)))
    systems["one LoRA on everything"] = System(
        "one", 1, ((0,),), tuple(stage_flops(alone, shape, arguments.records, tokens))
    )
    rivals = f" (other systems {arguments.rival_lr:g})" if arguments.rival_lr else ""
    caption = (
        f"{arguments.records} records, {shards} shards of {arguments.slices} slices, {arguments.epochs} epochs, "
        f"learning rate {arguments.lr:g}{rivals}."
    )
    return Setting(arguments.task, arguments.slices, shards, labels, systems, caption)


def _save(path: Path, system: TrainedSystem, base: Path, contents: Sequence[str], trained_by: str) -> None:
    found, labels = chain_outputs(system.config, base, contents, list(system.chains.values()))
    arrays: dict[str, Any] = {
        f"{shard}:{'-'.join(map(str, prefix))}": found[chain] for (shard, prefix), chain in system.chains.items()
    }
    np.savez(
        path,
        labels=labels,
        trained_by=np.array(trained_by),
        took=np.array([system.cpu_seconds, system.tokens]),
        **arrays,
    )


def _load(path: Path, trained_by: str) -> tuple[Known, np.ndarray]:
    with np.load(path) as arrays:
        found_by = str(arrays.get("trained_by", "unknown settings"))
        if found_by != trained_by:
            raise SystemExit(f"{path} was trained with {found_by}, not {trained_by}\nfix: name a new --work folder")
        outputs = {}
        for name in arrays.files:
            shard, found, prefix = name.partition(":")
            if found:
                outputs[int(shard), tuple(int(each) for each in prefix.split("-"))] = arrays[name]
        seconds, tokens = arrays["took"]
        return Known(outputs, float(seconds), int(tokens)), arrays["labels"]


if __name__ == "__main__":
    main()
