"""The runs of `benchmarks/whole_run.py`: a complete course, by our engine or plain Trainer, in separate processes.

In: a Course, a work folder. Out: wall and CPU seconds, including imports and loading, and held-out losses.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchlib.course import Course
from benchlib.engine_run import EngineRun, prefixes, seconds_of
from benchlib.module_process import library_environment, module_command
from benchlib.plain_stage import PlainStage

OURS, PLAIN, BEST = "ours", "plain, as published", "plain, best settings"
ABLATIONS = ("stored hidden states", "packing", "labelled-only head")
ONE_PROCESS_A_STAGE = "one long-lived process"

Measured = tuple[float, float, float, dict[str, Path]]
"""Wall, CPU and training seconds, and the PEFT folder of each sequence."""


@dataclass(frozen=True)
class Part:
    """The complete run of one system with one seed."""

    system: str
    seed: int
    wall_seconds: float
    cpu_seconds: float
    training_seconds: float  # without imports and loading of the base
    held_out_loss: dict[str, float]  # by sequence


def clocked(modules: Sequence[tuple[str, Path, Path]]) -> tuple[float, float]:
    """Run these modules sequentially, each in its own process. Returns their total wall and CPU seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {
        **library_environment(),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "DS_ACCELERATOR": "cpu",
    }
    for module, course, settings in modules:
        command = module_command(module, course, settings)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def plain_settings(course: Course, folder: Path, system: str) -> Iterator[Path]:
    """A settings file per stage of each sequence, in an order in which they can be trained."""
    for shard in range(len(course.shards)):
        for number, order in enumerate(course.orders):
            parent = None
            for depth in range(1, len(order) + 1):
                out = folder / f"{shard}-{number}-{depth}"
                stage = PlainStage(
                    shard=shard,
                    slices=order[:depth],
                    parent=parent,
                    out=out,
                    gradient_checkpointing=system == PLAIN,
                    length_grouped=system == BEST,
                )
                out.mkdir(parents=True)
                path = out / "stage.json"
                path.write_text(stage.model_dump_json())
                yield path
                parent = out


def run_plain(course: Course, folder: Path, system: str) -> Measured:
    file = write(folder / "course.json", course.model_dump_json())
    stages = list(plain_settings(course, folder, system))
    wall, cpu = clocked([("plain_stage", file, stage) for stage in stages])
    training = sum(float((stage.parent / "seconds").read_text()) for stage in stages)
    models = {
        f"{shard}-{number}": folder / f"{shard}-{number}-{course.slices}"
        for shard in range(len(course.shards))
        for number in range(len(course.orders))
    }
    return wall, cpu, training, models


def run_ours(course: Course, folder: Path, without: str) -> Measured:
    file = write(folder / "course.json", course.model_dump_json())
    a_process_each = without == ONE_PROCESS_A_STAGE
    numbers = range(len(prefixes(course))) if a_process_each else [None]
    runs = [
        EngineRun(folder=folder / "engine", without="nothing" if a_process_each else without, stage=number)
        for number in numbers
    ]
    settings = [write(folder / f"run{index}.json", run.model_dump_json()) for index, run in enumerate(runs)]
    wall, cpu = clocked([("engine_run", file, path) for path in settings])
    models = {path.name: path for path in sorted((folder / "engine" / "exports").iterdir())}
    training, _ = seconds_of(folder / "engine")
    return wall, cpu, training, models


def held_out(course: Course, models: dict[str, Path], folder: Path) -> dict[str, float]:
    result = folder / "losses.json"
    names = write(folder / "models.json", json.dumps({name: str(path) for name, path in models.items()}))
    command = module_command("held_out", folder / "course.json", names, result)
    subprocess.run(command, env=library_environment(), check=True, capture_output=True)
    found: dict[str, float] = json.loads(result.read_text())
    return found


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def measured(
    work: Path, course: Course, system: str, run: Callable[[Path], Measured], say: Callable[[str], None]
) -> Part:
    """One part, measured now or read from the work folder of an interrupted benchmark."""
    file = work / f"{system.replace(' ', '-').replace(',', '')}-{course.seed}.json"
    if file.exists():
        return Part(**json.loads(file.read_text()))
    with tempfile.TemporaryDirectory(dir=work) as folder:
        wall, cpu, training, models = run(Path(folder))
        losses = held_out(course, models, Path(folder))
    part = Part(system, course.seed, wall, cpu, training, losses)
    file.write_text(json.dumps(asdict(part)))
    mean = sum(loss for name, loss in losses.items() if name != "base") / (len(losses) - 1)
    say(f"{system}, seed {course.seed}: {wall:.0f} s, {cpu:.0f} CPU seconds, held-out loss {mean:.4f}")
    return part
