"""torch.compile on the engine's layers: does it pay, and does it stay exact?

    python benchmarks/engine_compile.py --base demo-model [--depth 1]

The same stage is trained by the engine as it is, with compiled MLPs, and with compiled layers (shapes dynamic: packs
differ in length). Each is trained in two processes of its own, so that the bytes of a replay are compared as a replay
makes them. CPU seconds of the optimizer steps after a warm-up stage that compiles everything; compiling is counted
apart. Writes benchmarks/results/engine_compile.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from s3t_ray.bench.course import Course, share_out
from s3t_ray.bench.instructions import instructions
from s3t_ray.bench.measure import save
from s3t_ray.bench.stage_speed import StageBench, model_shape

RESULTS = Path(__file__).with_name("results")
KINDS = ("nothing", "MLPs", "layers")


@dataclass(frozen=True)
class One:
    """One process."""

    compiled: str
    step_cpu_seconds: float
    compile_cpu_seconds: float  # by how much the first stage took longer than the second
    first_loss: float
    adapter_sha256: str
    graph_breaks: int


@dataclass(frozen=True)
class Row:
    """Two processes; all None where one did not end within the limit."""

    compiled: str
    step_cpu_seconds: float | None
    compile_cpu_seconds: float | None
    first_loss: float | None
    replay_equal: bool | None
    equals_uncompiled: bool | None
    graph_breaks: int | None


@dataclass(frozen=True)
class Result:
    model: str
    depth: int
    records: int
    limit_seconds: float  # of one process
    rows: tuple[Row, ...]


def one(given: argparse.Namespace) -> One:
    import torch

    shape = model_shape(given.base)
    slices = shape.layers // given.layers_per_group
    course = Course(
        base=given.base.absolute(),
        orders=(tuple(range(slices)),),
        layers=shape.layers,
        layers_per_group=given.layers_per_group,
        rank=16,
        alpha=32,
        lr=1e-4,
        epochs=1,
        batch_records=4,
        max_tokens=384,
        seed=0,
        **share_out(instructions(None), 1, 1, given.records, 0),
    )
    with tempfile.TemporaryDirectory() as folder:
        config = course.config(Path(folder) / "run", {})
        bench = StageBench(course, config, Path(folder))
        job = bench.job(given.depth)
        _compile(bench.trainer._base.model, given.one)
        warm = bench.speed(job, "-warm")
        speed = bench.speed(job, "-0")
        again = bench.speed(job, "-1")
        from s3t_ray.train.manifest import read_manifest

        losses = read_manifest(bench.store, job.stage_id + "-0").losses
    seconds = min(speed.cpu_seconds, again.cpu_seconds)
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values()) if given.one != "nothing" else 0
    return One(given.one, seconds, warm.cpu_seconds - seconds, losses[0], speed.adapter_sha256, breaks)


def _compile(model: Any, what: str) -> None:
    import torch

    for layer in model.model.layers:
        if what == "MLPs":
            layer.mlp.forward = torch.compile(layer.mlp.forward, dynamic=True)
        elif what == "layers":
            layer.forward = torch.compile(layer.forward, dynamic=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--records", type=int, default=8)
    parser.add_argument("--limit-seconds", type=float, default=900.0, help="of one process")
    parser.add_argument("--layers-per-group", type=int, default=10)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        found = one(given)
        print("RESULT " + json.dumps(asdict(found)))
        return 0
    rows: list[Row] = []
    plain = ""
    for kind in KINDS:
        pair = [ran(kind, given.limit_seconds) for _ in range(2)]
        if kind == "nothing":
            plain = next((each.adapter_sha256 for each in pair if each), "")
        rows.append(row_of(kind, pair, plain))
        print(rows[-1], file=sys.stderr, flush=True)
    console = Console(width=120)
    table = Table(title=f"torch.compile, stage at depth {given.depth}", title_justify="left")
    for name in ("compiled", "steps, CPU s", "faster", "compiling, CPU s", "first loss", "replay", "as uncompiled"):
        table.add_column(name, justify="left" if name == "compiled" else "right")
    for row in rows:
        if row.step_cpu_seconds is None:
            table.add_row(row.compiled, f"not within {given.limit_seconds:.0f} s")
            continue
        table.add_row(
            row.compiled,
            f"{row.step_cpu_seconds:.2f}",
            f"{rows[0].step_cpu_seconds / row.step_cpu_seconds:.2f}x",
            f"{row.compile_cpu_seconds:.1f}",
            f"{row.first_loss:.6f}",
            "equal" if row.replay_equal else "DIFFERS",
            "equal" if row.equals_uncompiled else "differs",
        )
    console.print(table)
    result = Result(given.base.name, given.depth, given.records, given.limit_seconds, tuple(rows))
    console.print(save(RESULTS / "engine_compile.json", result).name)
    return 0


def ran(kind: str, limit_seconds: float) -> One | None:
    """One process; None if it did not end within the limit."""
    command = [sys.executable, *sys.argv, "--one", kind]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"compiling {kind} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return One(**json.loads(lines[0].removeprefix("RESULT ")))


def row_of(kind: str, pair: Sequence[One | None], plain: str) -> Row:
    first, second = pair
    if first is None or second is None:
        return Row(kind, None, None, None, None, None, None)
    return Row(
        kind,
        min(first.step_cpu_seconds, second.step_cpu_seconds),
        max(first.compile_cpu_seconds, second.compile_cpu_seconds),
        first.first_loss,
        first.adapter_sha256 == second.adapter_sha256,
        first.adapter_sha256 == plain,
        first.graph_breaks,
    )


if __name__ == "__main__":
    sys.exit(main())
