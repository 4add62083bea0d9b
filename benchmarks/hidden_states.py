"""Measures stored hidden states: the cost of each choice of boundaries, equal bits, and the gain of reading ahead.

    python benchmarks/hidden_states.py --base demo-model [--only choices]

First it measures this machine's rates for `engine.stored_boundaries: auto`, ready for a config. Then it trains one run
(a shard of 2 slices, 2 sequences, 2 layer groups, 2 epochs) with all, some and no boundaries stored: CPU seconds, bytes
stored, and the digests of all adapters, which must be equal. Then it trains a stage of the top group from states
outside the page cache, read ahead and read on demand, and measures how long a step waits for them. One thread. Writes
benchmarks/results/hidden_states.json. The exit code is 1 if a choice changes a bit. `--only` remeasures one part and
keeps the other parts of that file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from benchlib.course import Course, share_out
from benchlib.engine_run import jobs, put_slices
from benchlib.instructions import instructions
from benchlib.matmul import measure
from benchlib.stage_speed import StageBench, model_shape
from rich.console import Console
from rich.table import Table
from torch import Tensor

from s3t_ray.store.store import Store
from s3t_ray.sweep.result_file import save
from s3t_ray.train import feeder
from s3t_ray.train.examples import Item
from s3t_ray.train.hidden_states.hidden import SliceStates
from s3t_ray.train.hidden_states.readahead import ReadAhead
from s3t_ray.train.trainer import Trainer

RESULTS = Path(__file__).with_name("results")
CHOICES: tuple[str | tuple[int, ...], ...] = ("all", (1,), (2,), ())
ORDERS, EPOCHS = ((0, 1), (1, 0)), 2


@dataclass(frozen=True)
class Choice:
    """One run with this choice."""

    stored: str
    cpu_seconds: float
    wall_seconds: float
    bytes: int
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """One way of reading, the best of its repeats."""

    way: str
    stage_wall_seconds: float
    stage_cpu_seconds: float  # all threads
    waited_ms: float  # by the training thread, per pack
    packs: int
    bytes_read: int
    adapter: str


@dataclass(frozen=True)
class Result:
    model: str
    gigaflops_per_rank: float
    read_megabytes_per_second: float  # not in the page cache, digests checked
    write_megabytes_per_second: float  # to the disk
    choices: tuple[Choice, ...]
    readings: tuple[Reading, ...]

    @property
    def bits_equal(self) -> bool:
        return len({each.adapters for each in self.choices}) < 2 and len({each.adapter for each in self.readings}) < 2


class OnDemand(ReadAhead):
    """Reads the states of a micro-batch when it is requested."""

    def _start_next(self) -> None:
        """Nothing is read ahead."""

    def take(self, items: Sequence[Item]) -> Tensor:
        tokens = sum(len(item.tokens) for item in items)
        return self._fill(items, torch.empty(tokens, self._hidden, dtype=self._dtype))


class Waits:
    """How long the training thread waits for states."""

    def __init__(self, kind: type[ReadAhead]) -> None:
        self.seconds, self.packs, self.bytes = 0.0, 0, 0
        waits = self

        class Timed(kind):  # type: ignore[valid-type, misc]
            def take(self, items: Sequence[Item]) -> Tensor:
                began = time.perf_counter()
                states: Tensor = super().take(items)
                waits.seconds += time.perf_counter() - began
                waits.packs += 1
                waits.bytes += states.nbytes
                return states

        self.kind = Timed


def course(base: Path, records: int, slices: int, layers: int, per_group: int, orders: Any, epochs: int = 1) -> Course:
    return Course(
        base=base,
        orders=orders,
        layers=layers,
        layers_per_group=per_group,
        rank=16,
        alpha=32,
        lr=1e-4,
        epochs=epochs,
        batch_records=4,
        max_tokens=512,
        seed=0,
        **share_out(instructions(None), 1, slices, records, 0),
    )


def run(now: Course, stored: str | tuple[int, ...], folder: Path) -> Choice:
    config = now.config(folder / "run", {"stored_boundaries": stored})
    store = Store.open(config.storage.uri)
    (folder / "slices").mkdir(parents=True)
    trainer = Trainer(config, now.base, store, folder / "scratch")
    every = list(jobs(now, put_slices(now, store, folder / "slices")))
    cpu, wall = time.process_time(), time.perf_counter()
    found = tuple(trainer.train(job, lambda progress: None, lambda: False).adapter_sha256[:16] for job in every)
    name = stored if isinstance(stored, str) else "none" if not stored else f"depth {', '.join(map(str, stored))}"
    return Choice(
        name,
        time.process_time() - cpu,
        time.perf_counter() - wall,
        sum(store.size(path) for path in store.files("hidden")),
        found,
    )


def forget_pages(folder: Path) -> None:
    """Drop the stored states from the page cache, so that they are read from disk."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def readings(now: Course, folder: Path, turns: int) -> Iterator[Reading]:
    config = now.config(folder / "run", {"micro_batch_tokens": 512})
    bench = StageBench(now, config, folder)
    job = bench.job(1)
    bench.speed(job, "-warm")  # stores the states
    ways: Mapping[str, tuple[type[ReadAhead], bool]] = {
        "in the page cache, when needed": (OnDemand, False),
        "from the disk, when needed": (OnDemand, True),
        "from the disk, ahead": (ReadAhead, True),
    }
    best: dict[str, Reading] = {}
    for turn in range(turns):
        for way, (kind, cold) in ways.items():
            waits = Waits(kind)
            vars(feeder)["ReadAhead"] = waits.kind
            if cold:
                forget_pages(folder / "run" / "hidden")
            cpu, wall = time.process_time(), time.perf_counter()
            speed = bench.speed(job, f"-{way[:4]}-{turn}")
            reading = Reading(
                way,
                time.perf_counter() - wall,
                time.process_time() - cpu,
                1000 * waits.seconds / waits.packs,
                waits.packs,
                waits.bytes,
                speed.adapter_sha256[:16],
            )
            if way not in best or reading.stage_wall_seconds < best[way].stage_wall_seconds:
                best[way] = reading
    vars(feeder)["ReadAhead"] = ReadAhead
    yield from best.values()


def disk_rates(folder: Path, megabytes: int = 128) -> tuple[float, float]:
    """Megabytes per second read (uncached, through the engine's reader, digests checked) and written to disk."""
    from s3t_ray.train.hidden_states.hidden_file import PartReader, PartWriter
    from s3t_ray.train.hidden_states.hidden_manifest import HiddenManifest

    rows, tokens, hidden = megabytes, 256, 1024  # rows of one MiB
    one = torch.randn(tokens, hidden)
    path = folder / "rates.safetensors"
    began = time.perf_counter()
    writer = PartWriter(path, rows * tokens)
    for _ in range(rows):
        writer.append(one)
    writer.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    written = time.perf_counter() - began
    forget_pages(folder)
    manifest = HiddenManifest(
        recipe_digest="",
        base_digest="",
        slice_sha256="",
        boundary=1,
        lengths=(tokens,) * rows,
        digests=tuple(digest.hex() for digest in writer.digests),
        parts=1,
    )
    states = SliceStates(manifest, [PartReader(path, "rates")])
    out = torch.empty(tokens, hidden)
    began = time.perf_counter()
    for row in range(rows):
        states.read(row, out)
    read = time.perf_counter() - began
    states.close()
    path.unlink()
    size = rows * out.nbytes / 1e6
    return size / read, size / written


EMPTY = Result("", 0.0, 0.0, 0.0, (), ())


def saved(path: Path) -> Result:
    """The saved results, if there are any."""
    if not path.is_file():
        return EMPTY
    document = json.loads(path.read_text())
    return Result(
        document["model"],
        document["gigaflops_per_rank"],
        document["read_megabytes_per_second"],
        document["write_megabytes_per_second"],
        tuple(Choice(**{**each, "adapters": tuple(each["adapters"])}) for each in document["choices"]),
        tuple(Reading(**each) for each in document["readings"]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--records", type=int, default=4, help="records per slice")
    parser.add_argument("--layers-per-group", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="future folder of the run: its disk is measured")
    parser.add_argument("--only", choices=("rates", "choices", "reading"))
    given = parser.parse_args()
    shape, base = model_shape(given.base), given.base.absolute()
    known = saved(RESULTS / "hidden_states.json") if given.only else EMPTY
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        result = replace(known, model=given.base.name)
        if given.only in (None, "rates"):
            read, write = disk_rates(folder)
            rate = measure(shape, 512, 256, 0.7).layer / 1e9
            result = replace(
                result, gigaflops_per_rank=rate, read_megabytes_per_second=read, write_megabytes_per_second=write
            )
        if given.only in (None, "choices"):
            now = course(base, given.records, len(ORDERS[0]), shape.layers, given.layers_per_group, ORDERS, EPOCHS)
            found = tuple(run(now, stored, folder / f"choice{number}") for number, stored in enumerate(CHOICES))
            result = replace(result, choices=found)
        if given.only in (None, "reading"):
            (folder / "reading").mkdir()
            alone = course(base, 2 * given.records, 1, shape.layers, given.layers_per_group, ((0,),))
            result = replace(result, readings=tuple(readings(alone, folder / "reading", given.turns)))
    show(result)
    save(RESULTS / "hidden_states.json", result)
    return 0 if result.bits_equal else 1


def show(result: Result) -> None:
    console = Console(width=130)
    console.print(
        f"workers.gigaflops_per_rank: {result.gigaflops_per_rank:.0f}   storage.megabytes_per_second: "
        f"{min(result.read_megabytes_per_second, result.write_megabytes_per_second):.0f}  "
        f"(read {result.read_megabytes_per_second:.0f}, write {result.write_megabytes_per_second:.0f})"
    )
    table = Table(title="boundaries stored", title_justify="left")
    for name in ("stored", "CPU s", "wall s", "MB", "bits"):
        table.add_column(name, justify="left" if name == "stored" else "right")
    for choice in result.choices:
        equal = choice.adapters == result.choices[0].adapters
        table.add_row(
            choice.stored,
            f"{choice.cpu_seconds:.1f}",
            f"{choice.wall_seconds:.1f}",
            f"{choice.bytes / 1e6:.1f}",
            "equal" if equal else "DIFFER",
        )
    console.print(table)
    table = Table(title="reading the states of a stage", title_justify="left")
    for name in ("states", "stage, wall s", "CPU s", "wait per pack, ms", "packs", "MB read", "bits"):
        table.add_column(name, justify="left" if name == "states" else "right")
    for reading in result.readings:
        table.add_row(
            reading.way,
            f"{reading.stage_wall_seconds:.2f}",
            f"{reading.stage_cpu_seconds:.2f}",
            f"{reading.waited_ms:.2f}",
            str(reading.packs),
            f"{reading.bytes_read / 1e6:.1f}",
            "equal" if reading.adapter == result.readings[0].adapter else "DIFFER",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
