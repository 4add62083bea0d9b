"""Compares each stage with its floor: the FLOPs it cannot avoid, at the rate of matrix products in the same run.

    python benchmarks/engine_floor.py --base demo-model [--data FILE.json]
    python benchmarks/engine_floor.py --redraw

The floor counts the frozen matrices of the layers above the stage's boundary, forward and for the gradient of their
inputs, on real tokens, and the vocabulary head on labelled tokens. The rate is that of one layer's own matrix products
at the length of the packs; the rate of a square product is listed too. The adapters' products cannot be avoided
either, and have their own column. Attention, norms and everything else count as overhead. Times are CPU seconds of the
optimizer steps, one thread. The stage is trained twice, with equal bytes. Writes benchmarks/results/engine_floor.json
and .png. The exit code is 1 if a stage misses 70% or its replay differs. `--redraw` only redraws the saved results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchlib.course import Course, share_out
from benchlib.instructions import instructions
from benchlib.matmul import MatmulRate, measure
from benchlib.stage_speed import StageBench, StageSpeed, cost_of, model_shape
from rich.console import Console
from rich.table import Table

from s3t_ray.sweep.result_file import save
from s3t_ray.train.job import StageJob

RESULTS = Path(__file__).with_name("results")
TARGET = 0.7
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm_", "aten::addmm", "aten::bmm"),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
}


@dataclass(frozen=True)
class Row:
    """One depth."""

    speed: StageSpeed
    rate: MatmulRate
    matrix_flops: float  # of the frozen matrices
    head_flops: float
    adapter_flops: float
    replay_equal: bool
    time_shares: dict[str, float]  # by kind of operation, in a profiled run

    @property
    def floor_seconds(self) -> float:
        return self.matrix_flops / self.rate.layer + self.head_flops / self.rate.head

    @property
    def share(self) -> float:
        """Share of the stage's time that the floor would take."""
        return self.floor_seconds / self.speed.cpu_seconds

    @property
    def share_with_adapters(self) -> float:
        return (self.floor_seconds + self.adapter_flops / self.rate.layer) / self.speed.cpu_seconds

    @property
    def share_at_square_rate(self) -> float:
        """The same share, with the rate of square matrices."""
        return (self.matrix_flops + self.head_flops) / self.rate.square / self.speed.cpu_seconds


@dataclass(frozen=True)
class Result:
    model: str
    records: int
    batch_records: int
    rank: int
    layers_per_group: int
    rows: tuple[Row, ...]


def time_shares(bench: StageBench, job: StageJob) -> dict[str, float]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        bench.speed(job, "-profiled")
    seconds: Counter[str] = Counter()
    names = {name: kind for kind, operations in KINDS.items() for name in operations}
    for event in profiler.key_averages():
        seconds[names.get(event.key, "all else")] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {kind: seconds[kind] / total for kind in (*KINDS, "all else")}


def row(bench: StageBench, depth: int, base: Path, turns: int) -> Row:
    shape = model_shape(base)
    job = bench.job(depth)
    bench.speed(job, "-warm")
    found, rates = [], []
    for turn in range(turns):
        found.append(bench.speed(job, f"-{turn}"))
        steps = found[-1].steps
        rates.append(measure(shape, found[-1].tokens // steps, found[-1].labelled // steps, 0.7))
    speed = min(found, key=lambda each: each.cpu_seconds)
    cost = cost_of(bench.config, shape, speed)
    matrices = 4 * shape.layer_parameters * depth * bench.config.lora.layers_per_group * speed.tokens
    return Row(
        speed,
        # The best rate and the best time: neither includes the load of other processes.
        MatmulRate(*(max(getattr(rate, name) for rate in rates) for name in ("layer", "square", "head"))),
        matrices,
        cost.head_flops,
        cost.adapter_flops,
        len({each.adapter_sha256 for each in found}) == 1,
        time_shares(bench, job),
    )


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    depths = [row.speed.depth for row in result.rows]
    left.bar(
        [depth - 0.2 for depth in depths], [row.share for row in result.rows], 0.4, label="frozen matrices and head"
    )
    left.bar(
        [depth + 0.2 for depth in depths], [row.share_with_adapters for row in result.rows], 0.4, label="and adapters"
    )
    left.axhline(TARGET, color="#555555", linewidth=1, linestyle="--")
    left.set_ylim(0, 1)
    left.set_ylabel("share of the stage's time that the floor takes")
    bottom = [0.0] * len(depths)
    for kind in (*KINDS, "all else"):
        shares = [row.time_shares[kind] for row in result.rows]
        right.bar(depths, shares, 0.5, bottom=bottom, label=kind)
        bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    right.set_ylabel("share of the stage's time")
    for panel in (left, right):
        panel.set_xticks(depths, [f"depth {depth}" for depth in depths])
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def saved(path: Path) -> Result:
    """The saved results; derived values are computed again."""

    def made(kind: type[Any], found: dict[str, Any]) -> dict[str, Any]:
        return {field.name: found[field.name] for field in fields(kind)}

    document = json.loads(path.read_text())
    rows = [
        Row(
            **{
                **made(Row, each),
                "speed": StageSpeed(**made(StageSpeed, each["speed"])),
                "rate": MatmulRate(**each["rate"]),
            }
        )
        for each in document["rows"]
    ]
    return Result(**{**made(Result, document), "rows": tuple(rows)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--redraw", action="store_true", help="redraw the saved results")
    parser.add_argument("--data", type=Path, help="JSON list of instruction, input, output; default: docstrings")
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="records per optimizer step")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--layers-per-group", type=int, default=10)
    given = parser.parse_args()
    if given.redraw:
        draw(saved(RESULTS / "engine_floor.json"), RESULTS / "engine_floor.png")
        return 0
    if given.base is None:
        parser.error("--base is missing: name the folder of the base model")
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
        batch_records=given.batch,
        max_tokens=512,
        seed=0,
        **share_out(instructions(given.data), 1, 1, given.records, 0),
    )
    console = Console(width=150)
    table = Table(title="each stage against its floor", title_justify="left")
    heads = (
        "depth",
        "tokens",
        "tokens / CPU s",
        "GFLOP/s of a layer's products",
        "of square ones",
        "of the head",
        "share of the floor",
        "with adapters",
        "at the square rate",
        "replay",
        "matrix products",
        "attention",
    )
    for name in heads:
        table.add_column(name, justify="right")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = course.config(Path(folder) / "run", {})
        bench = StageBench(course, config, Path(folder))
        for depth in range(1, slices + 1):
            rows.append(row(bench, depth, given.base, given.turns))
            each = rows[-1]
            table.add_row(
                str(depth),
                str(each.speed.tokens),
                f"{each.speed.tokens_per_cpu_second:.0f}",
                f"{each.rate.layer / 1e9:.1f}",
                f"{each.rate.square / 1e9:.1f}",
                f"{each.rate.head / 1e9:.1f}",
                f"{each.share:.1%}",
                f"{each.share_with_adapters:.1%}",
                f"{each.share_at_square_rate:.1%}",
                "equal" if each.replay_equal else "DIFFERS",
                f"{each.time_shares['matrix products']:.0%}",
                f"{each.time_shares['attention']:.0%}",
            )
    console.print(table)
    result = Result(given.base.name, given.records, given.batch, 16, given.layers_per_group, tuple(rows))
    console.print(save(RESULTS / "engine_floor.json", result).name)
    draw(result, RESULTS / "engine_floor.png")
    return 0 if all(each.share >= TARGET and each.replay_equal for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
