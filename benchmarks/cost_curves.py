"""Measures how the cost of a run grows with the number of slices, sequences, tokens per record or ranks.

    python benchmarks/cost_curves.py [--only ranks]

A random Llama with 12 layers of width 256 and a vocabulary of 8,192; one shard, always the same records. Times are CPU
seconds of the stages (summed over ranks), hidden states included. Each measurement is compared with the plan's FLOPs,
relative to the first point: a difference shows that the engine gains or loses with size. Ranks are processes with
ZeRO 2 over gloo. Writes benchmarks/results/cost_curves.json and .png. `--only` remeasures one curve and keeps the other
points of that file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchlib.course import Course
from benchlib.engine_run import EngineRun, jobs, put_slices, seconds_of
from benchlib.module_process import library_environment, module_command
from benchlib.random_base import SHAPES, random_base, words
from rich.console import Console
from rich.table import Table

from s3t_ray.config.schema import Config
from s3t_ray.plan.cost import plan_cost
from s3t_ray.plan.work import describe_work
from s3t_ray.store.store import Store
from s3t_ray.sweep.result_file import save
from s3t_ray.train.examples import read_items
from s3t_ray.train.trainer import Trainer

RESULTS = Path(__file__).with_name("results")
SHAPE = SHAPES["small"]
RECORDS, TOKENS = 12, 128  # the same records at every point, except on the third curve
SLICES, SEQUENCES, LENGTHS, RANKS = (1, 2, 3, 4, 6), (1, 2, 3, 4), (64, 128, 256, 512), (1, 2, 4)


@dataclass(frozen=True)
class Point:
    """One run."""

    curve: str
    value: int
    stages: int
    cpu_seconds: float  # of all ranks
    wall_seconds: float
    plan_flops: float
    tokens: int  # learned, over all stages and epochs

    @property
    def microseconds_per_token(self) -> float:
        return 1e6 * self.cpu_seconds / self.tokens


@dataclass(frozen=True)
class Result:
    layers: int
    hidden: int
    records: int
    points: tuple[Point, ...]


def course(base: Path, slices: int, sequences: int, length: int, records: int) -> Course:
    contents = [f'{{"text": "{words(length, each)}"}}' for each in range(records)]
    each = records // slices
    return Course(
        base=base,
        shards=(tuple(tuple(contents[piece * each : (piece + 1) * each]) for piece in range(slices)),),
        held_out=(),
        orders=tuple(tuple((start + step) % slices for step in range(slices)) for start in range(sequences)),
        layers=SHAPE.layers,
        layers_per_group=SHAPE.layers // slices,
        rank=8,
        alpha=16,
        lr=1e-4,
        epochs=1,
        batch_records=8,
        max_tokens=length,
        seed=0,
    )


def plan_flops(config: Config, now: Course, tokens: float, labelled: float) -> float:
    records = sum(len(piece) for piece in now.shards[0])
    work = describe_work(config, records, tokens / records, labelled / tokens, SHAPE)
    return plan_cost(work, [now.orders]).flops


def alone(curve: str, value: int, now: Course, folder: Path) -> Point:
    """All stages in this process, twice. The faster run counts, because the first also fills caches and buffers."""
    config = now.config(folder / "run", {})
    found = []
    for turn in range(2):
        store = Store.open(str(folder / f"run{turn}"))
        (folder / f"slices{turn}").mkdir(parents=True)
        trainer = Trainer(config, now.base, store, folder / "scratch")
        inputs = put_slices(now, store, folder / f"slices{turn}")
        every = list(jobs(now, inputs))
        cpu, wall = time.thread_time(), time.perf_counter()
        learned = sum(trainer.train(job, lambda progress: None, lambda: False).tokens for job in every)
        found.append((time.thread_time() - cpu, time.perf_counter() - wall))
    items = [
        item
        for piece in inputs.values()
        for item in read_items(store, piece, trainer._tokenizer, config.task, folder / "cache").items
    ]
    tokens, labelled = sum(len(item.tokens) for item in items), sum(item.labelled for item in items)
    cpu_seconds, wall_seconds = min(found)
    flops = plan_flops(config, now, tokens, labelled)
    return Point(curve, value, len(every), cpu_seconds, wall_seconds, flops, learned)


def by_ranks(ranks: int, now: Course, folder: Path, like: Point) -> Point:
    """All stages with `ranks` processes; imports and loading are not counted."""
    folder.mkdir()
    (folder / "course.json").write_text(now.model_dump_json())
    running = []
    for rank in range(ranks):
        engine: dict[str, Any] = {"ranks": ranks, "zero_stage": 2}
        meeting = f"file://{folder}/meeting" if ranks > 1 else None
        run = EngineRun(folder=folder / "engine", engine=engine, rank=rank, meeting=meeting)
        settings = folder / f"run{rank}.json"
        settings.write_text(run.model_dump_json())
        command = module_command("engine_run", folder / "course.json", settings)
        running.append(subprocess.Popen(command, env=library_environment(), stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"a rank of {ranks} ended with {process.returncode}:\n{errors[-3000:]}")
    each = [seconds_of(folder / "engine", rank) for rank in range(ranks)]
    return Point(
        "ranks",
        ranks,
        like.stages,
        sum(cpu for _, cpu in each),
        max(wall for wall, _ in each),
        like.plan_flops,
        like.tokens,
    )


def measure(folder: Path, only: str | None, known: Sequence[Point]) -> list[Point]:
    """The points of all curves; with `only`, that curve's points and the others from `known`."""
    base = random_base(folder / "base", SHAPE, "float32", 2048)
    values = {"slices": SLICES, "sequences": SEQUENCES, "tokens per record": LENGTHS, "ranks": RANKS}
    points: list[Point] = []
    for curve in values:
        if only in (None, curve):
            # The ranks train exactly the stages of the point with two slices.
            like = next((each for each in (*points, *known) if (each.curve, each.value) == ("slices", 2)), None)
            points += [_point(curve, value, base, folder, like) for value in values[curve]]
        else:
            points += [each for each in known if each.curve == curve]
    return points


def _point(curve: str, value: int, base: Path, folder: Path, like: Point | None) -> Point:
    place = folder / f"{curve}{value}".replace(" ", "-")
    if curve == "ranks":
        assert like is not None
        return by_ranks(value, course(base, 2, 1, TOKENS, RECORDS), place, like)
    if curve == "slices":
        return alone(curve, value, course(base, value, 1, TOKENS, RECORDS), place)
    if curve == "sequences":
        return alone(curve, value, course(base, 4, value, TOKENS, RECORDS), place)
    # Roughly the same number of tokens each time.
    return alone(curve, value, course(base, 2, 1, value, max(2, RECORDS * TOKENS // value)), place)


def saved_points(path: Path) -> tuple[Point, ...]:
    names = {field.name for field in fields(Point)}
    found = json.loads(path.read_text())["points"]
    return tuple(Point(**{name: value for name, value in each.items() if name in names}) for each in found)


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = list(dict.fromkeys(point.curve for point in result.points))
    figure, panels = pyplot.subplots(1, len(curves), figsize=(3.4 * len(curves), 3.4))
    for panel, curve in zip(panels, curves, strict=True):
        points = [point for point in result.points if point.curve == curve]
        first = points[0]
        panel.plot(
            [point.value for point in points], [point.cpu_seconds for point in points], marker="o", label="measured"
        )
        planned = [first.cpu_seconds * point.plan_flops / first.plan_flops for point in points]
        panel.plot([point.value for point in points], planned, linestyle="--", color="#555555", label="plan's FLOPs")
        panel.set_xlabel(curve)
        panel.set_ylim(0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("CPU seconds of the run")
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("slices", "sequences", "tokens per record", "ranks"))
    given = parser.parse_args()
    known = saved_points(RESULTS / "cost_curves.json") if given.only else ()
    with tempfile.TemporaryDirectory() as folder:
        points = measure(Path(folder), given.only, known)
    console = Console(width=130)
    table = Table(title="cost of a run", title_justify="left")
    for name in ("grows", "to", "stages", "CPU s", "wall s", "CPU µs per token", "measured / first", "plan / first"):
        table.add_column(name, justify="left" if name == "grows" else "right")
    for point in points:
        first = next(each for each in points if each.curve == point.curve)
        table.add_row(
            point.curve,
            str(point.value),
            str(point.stages),
            f"{point.cpu_seconds:.2f}",
            f"{point.wall_seconds:.2f}",
            f"{point.microseconds_per_token:.0f}",
            f"{point.cpu_seconds / first.cpu_seconds:.2f}",
            f"{point.plan_flops / first.plan_flops:.2f}",
        )
    console.print(table)
    result = Result(SHAPE.layers, SHAPE.hidden, RECORDS, tuple(points))
    console.print(save(RESULTS / "cost_curves.json", result).name)
    draw(result, RESULTS / "cost_curves.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
