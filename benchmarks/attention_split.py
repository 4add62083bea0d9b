"""Compares splitting a pack of records with slicing it: alternating runs of the same stage in one process.

    python benchmarks/attention_split.py --base demo-model [--records 16] [--turns 3]

The engine used to slice. The backward pass of each slice fills a tensor as large as the pack, which splitting avoids.
Times are CPU seconds of the optimizer steps, the minimum over the turns. The adapters must be bitwise equal, otherwise
the exit code is 1. The last columns show how much of the stage's time its floor takes in both cases (see
engine_floor.py). Writes results/attention_split.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchlib.course import Course, share_out
from benchlib.instructions import instructions
from benchlib.matmul import measure
from benchlib.stage_speed import StageBench, StageSpeed, cost_of, model_shape
from rich.console import Console
from rich.table import Table
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from s3t_ray.sweep.result_file import save
from s3t_ray.train.attention import PACKED_SDPA, register_packed_sdpa
from s3t_ray.train.job import StageJob

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Row:
    """One depth."""

    depth: int
    tokens: int
    micro_batch_tokens: int
    sliced_cpu_seconds: float
    split_cpu_seconds: float
    floor_cpu_seconds: float
    equal: bool

    @property
    def ratio(self) -> float:
        """Time with splitting relative to slicing."""
        return self.split_cpu_seconds / self.sliced_cpu_seconds


@dataclass(frozen=True)
class Result:
    model: str
    records: int
    batch_records: int
    rows: tuple[Row, ...]


def sliced(
    module: Any, query: Any, key: Any, value: Any, mask: Any, segments: Any = (), **kwargs: Any
) -> tuple[Any, None]:
    """The former attention, which sliced."""
    if len(segments) <= 1:
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)
    parts = [
        sdpa_attention_forward(
            module, query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], None, **kwargs
        )[0]
        for start, end in segments
    ]
    return torch.cat(parts, dim=1), None


@contextmanager
def as_it_was() -> Iterator[None]:
    ALL_ATTENTION_FUNCTIONS.register(PACKED_SDPA, sliced)
    try:
        yield
    finally:
        register_packed_sdpa()


def row(bench: StageBench, depth: int, base: Path, turns: int) -> Row:
    job: StageJob = bench.job(depth)
    bench.speed(job, "-warm")
    before: list[StageSpeed] = []
    after: list[StageSpeed] = []
    rates = []
    shape = model_shape(base)
    for turn in range(turns):
        with as_it_was():
            before.append(bench.speed(job, f"-sliced-{turn}"))
        after.append(bench.speed(job, f"-split-{turn}"))
        rates.append(measure(shape, after[-1].tokens // after[-1].steps, after[-1].labelled // after[-1].steps, 0.5))
    cost = cost_of(bench.config, shape, after[0])
    matrices = 4 * shape.layer_parameters * depth * bench.config.lora.layers_per_group * after[0].tokens
    return Row(
        depth,
        after[0].tokens,
        bench.config.engine.micro_batch_tokens,
        min(each.cpu_seconds for each in before),
        min(each.cpu_seconds for each in after),
        matrices / max(rate.layer for rate in rates) + cost.head_flops / max(rate.head for rate in rates),
        len({each.adapter_sha256 for each in (*before, *after)}) == 1,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="records per optimizer step")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--layers-per-group", type=int, default=10)
    given = parser.parse_args()
    layers = model_shape(given.base).layers
    slices = layers // given.layers_per_group
    course = Course(
        base=given.base.absolute(),
        orders=(tuple(range(slices)),),
        layers=layers,
        layers_per_group=given.layers_per_group,
        rank=16,
        alpha=32,
        lr=1e-4,
        epochs=1,
        batch_records=given.batch,
        max_tokens=512,
        seed=0,
        **share_out(instructions(None), 1, 1, given.records, 0),
    )
    table = Table(title="split packs against sliced packs", title_justify="left")
    for name in ("depth", "tokens", "sliced, CPU s", "split, CPU s", "ratio", "floor share before", "after", "bytes"):
        table.add_column(name, justify="right")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = course.config(Path(folder) / "run", {"micro_batch_tokens": given.micro_batch_tokens})
        bench = StageBench(course, config, Path(folder))
        for depth in range(1, slices + 1):
            rows.append(row(bench, depth, given.base, given.turns))
            each = rows[-1]
            table.add_row(
                str(each.depth),
                str(each.tokens),
                f"{each.sliced_cpu_seconds:.2f}",
                f"{each.split_cpu_seconds:.2f}",
                f"{each.ratio:.3f}",
                f"{each.floor_cpu_seconds / each.sliced_cpu_seconds:.1%}",
                f"{each.floor_cpu_seconds / each.split_cpu_seconds:.1%}",
                "equal" if each.equal else "DIFFER",
            )
    Console(width=120).print(table)
    save(RESULTS / "attention_split.json", Result(given.base.name, given.records, given.batch, tuple(rows)))
    return 0 if all(each.equal for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
