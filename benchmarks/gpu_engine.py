"""The engine on a GPU: Llama-13B's shape with random weights, stages 1..L.

    python benchmarks/gpu_engine.py [--shape 13b] [--device cuda] [--work FOLDER]

Prints tokens/s of each stage, its share of the matrix-multiply rate measured in the same run at the model's own shapes
(bfloat16), and the peak memory beside what the memory plan says. The base is written to --work first (26 GB for 13b).
`--shape tiny --device cpu` goes the same way in seconds, to see that it works. Writes a JSON and a chart of that shape
and device to benchmarks/results; exit code 1 when a stage on a GPU stays below half of the rate.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchlib.course import Course
from benchlib.matmul import MatmulRate, measure
from benchlib.random_base import SHAPES, random_base, words
from benchlib.stage_speed import StageBench, StageSpeed, cost_of
from rich.console import Console
from rich.table import Table

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.memory import RankMemory, engine_setting, rank_memory
from s3t_ray.plan.work import describe_work
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
TARGET = 0.5
SLICES = 4


@dataclass(frozen=True)
class Row:
    """One depth."""

    speed: StageSpeed
    flops: float  # that the stage cannot avoid, as the plan counts them
    rate: float  # FLOP/s of a layer's matrix products
    peak_bytes: int  # on a GPU what torch allocated, on a CPU the process's peak
    planned: RankMemory
    replay_equal: bool

    @property
    def tokens_per_second(self) -> float:
        return self.speed.tokens / self.speed.wall_seconds

    @property
    def share(self) -> float:
        """Of the time, what the FLOPs would take at the measured rate."""
        return self.flops / self.rate / self.speed.wall_seconds


@dataclass(frozen=True)
class Result:
    device: str
    shape: str
    precision: str
    record_tokens: int
    micro_batch_tokens: int
    rates: MatmulRate
    rows: tuple[Row, ...]


def peak_bytes(device: str) -> int:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    import torch

    return torch.cuda.max_memory_allocated()


def planned(config: Config, shape: ModelShape, speed: StageSpeed) -> RankMemory:
    """Memory at this depth: that of a plan whose deepest stage it is."""
    work = describe_work(config, speed.records, speed.tokens / speed.records, speed.labelled / speed.tokens, shape)
    return rank_memory(replace(work, slices=speed.depth), engine_setting(config))


def row(bench: StageBench, depth: int, shape: ModelShape, rates: MatmulRate, device: str) -> Row:
    job = bench.job(depth)
    warm = bench.speed(job, "-warm")
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
    speed = bench.speed(job)
    return Row(
        speed,
        cost_of(bench.config, shape, speed).flops,
        rates.layer,
        peak_bytes(device),
        planned(bench.config, shape, speed),
        warm.adapter_sha256 == speed.adapter_sha256,
    )


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6))
    depths = [each.speed.depth for each in result.rows]
    left.bar(depths, [each.share for each in result.rows], 0.5)
    left.axhline(TARGET, color="#555555", linewidth=1, linestyle="--")
    left.set_ylabel("share of the matrix-multiply rate")
    right.bar([each - 0.2 for each in depths], [each.peak_bytes / 2**30 for each in result.rows], 0.4, label="measured")
    right.bar([each + 0.2 for each in depths], [each.planned.total / 2**30 for each in result.rows], 0.4, label="plan")
    right.set_ylabel("peak memory, GiB")
    right.legend(frameon=False)
    for panel in (left, right):
        panel.set_xticks(depths, [f"depth {depth}" for depth in depths])
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result.shape} shape, {result.device}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="13b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--work", type=Path, help="where the random base is written; default: the temporary folder")
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--record-tokens", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32, help="records an optimizer step")
    parser.add_argument("--micro-batch-tokens", type=int, default=16384)
    parser.add_argument("--hidden-states", choices=["store", "recompute"], default="store")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    console = Console(width=140)
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        console.print(
            "No CUDA device: this torch "
            + ("was built without CUDA" if torch.version.cuda is None else "sees no GPU")
            + ". Nothing was measured. Run it on a machine with a GPU, or see that it works with "
            "--shape tiny --device cpu."
        )
        return 2
    device = given.device
    precision = "bfloat16" if device == "cuda" else "float32"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    shape = SHAPES[given.shape]
    slices = min(SLICES, shape.layers)
    rates = measure(
        shape, given.micro_batch_tokens, given.micro_batch_tokens, 2.0 if device == "cuda" else 0.3, device, precision
    )
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory(dir=given.work) as temporary:
        folder = Path(temporary)
        base = random_base(folder / "base", shape, precision, 2 * given.record_tokens)
        course = Course(
            base=base,
            shards=((tuple(f'{{"text": "{words(given.record_tokens, each)}"}}' for each in range(given.records)),),),
            held_out=(),
            orders=(tuple(range(slices)),),
            layers=shape.layers,
            layers_per_group=shape.layers // slices,
            rank=32,
            alpha=64,
            lr=2e-5,
            epochs=1,
            batch_records=given.batch,
            max_tokens=given.record_tokens,
            seed=0,
        )
        config = course.config(
            folder / "run",
            {
                "precision": precision,
                "micro_batch_tokens": given.micro_batch_tokens,
                "hidden_states": given.hidden_states,
            },
            workers={"gpus_per_rank": int(device == "cuda")},
        )
        bench = StageBench(course, config, folder)
        rows = tuple(row(bench, depth, shape, rates, device) for depth in range(1, slices + 1))
    result = Result(name, given.shape, precision, given.record_tokens, given.micro_batch_tokens, rates, rows)
    table = Table(title=f"{given.shape} shape on {name}, {precision}", title_justify="left")
    for head in ("depth", "tokens/s", "TFLOP/s", "share of the rate", "peak GiB", "planned GiB", "replay"):
        table.add_column(head, justify="right")
    for each in rows:
        table.add_row(
            str(each.speed.depth),
            f"{each.tokens_per_second:,.0f}",
            f"{each.flops / each.speed.wall_seconds / 1e12:.3g}",
            f"{each.share:.1%}",
            f"{each.peak_bytes / 2**30:.2f}",
            f"{each.planned.total / 2**30:.2f}",
            "equal" if each.replay_equal else "DIFFERS",
        )
    console.print(table)
    console.print(
        f"matrix products: {rates.layer / 1e12:.3g} TFLOP/s at the model's shapes, {rates.square / 1e12:.3g} square",
        highlight=False,
    )
    stem = f"gpu_engine-{given.shape}-{name.replace(' ', '-')}"
    console.print(save(RESULTS / f"{stem}.json", result).name)
    draw(result, RESULTS / f"{stem}.png")
    return 0 if device == "cpu" or all(each.share >= TARGET for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
