"""Compares the memory plan with measured peaks, and prints its proposals for known machines.

    python benchmarks/memory_plan.py --base demo-model

Each setting trains one step of the deepest stage in its own process. Its peak resident memory, minus the memory after
the imports, is compared with the plan's figure for a CPU. Then come the plan's proposals for Llama-13B on four
machines. These are predictions; `benchmarks/gpu/run.py` measures some of them on a GPU. Writes
benchmarks/results/memory_plan.json and .png. The exit code is 1 if a peak is 15% above its plan.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchlib.course import Course
from benchlib.instructions import instructions
from benchlib.random_base import SHAPES
from rich.console import Console
from rich.table import Table

from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
MOST_ABOVE = 0.15
GIB = 2**30


@dataclass(frozen=True)
class Setting:
    zero_stage: int
    micro_batch_tokens: int
    gradient_checkpointing: bool


SETTINGS = (
    Setting(0, 512, False),
    Setting(0, 2048, False),
    Setting(0, 2048, True),
    Setting(2, 1024, False),
)


@dataclass(frozen=True)
class Row:
    setting: Setting
    tokens: int  # of the largest pack
    planned_bytes: int
    measured_bytes: int

    @property
    def ratio(self) -> float:
        return self.measured_bytes / self.planned_bytes


@dataclass(frozen=True)
class Proposed:
    """What the plan proposes for a machine."""

    machine: str
    groups: int
    ranks: int
    zero_stage: int
    quantize: str
    micro_batch_tokens: int
    gradient_checkpointing: bool
    planned_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Result:
    model: str
    rows: tuple[Row, ...]
    proposals: tuple[Proposed, ...]


def proposals() -> tuple[Proposed, ...]:
    from s3t_ray.plan.propose import KNOWN_GPUS, propose

    found = [propose(SHAPES["13b"], gpus) for gpus in KNOWN_GPUS]
    return tuple(
        Proposed(
            each.gpus.name,
            each.groups,
            each.ranks,
            each.zero_stage,
            each.quantize,
            each.micro_batch_tokens,
            each.gradient_checkpointing,
            each.memory.total,
            each.gpus.memory_bytes,
        )
        for each in found
    )


def status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def one(base: Path, setting: Setting, layers_per_group: int) -> Row:
    """Train one step at the deepest depth in this process."""
    from benchlib.stage_speed import StageBench, model_shape
    from transformers import AutoTokenizer

    from s3t_ray.data.readers.inputs import encode
    from s3t_ray.plan.memory import engine_setting, rank_memory
    from s3t_ray.plan.work import describe_work

    shape = model_shape(base)
    slices = shape.layers // layers_per_group
    contents = instructions(None)
    course = Course(
        base=base.absolute(),
        shards=((tuple(contents[:1]),),),
        held_out=(),
        orders=(tuple(range(slices)),),
        layers=shape.layers,
        layers_per_group=layers_per_group,
        rank=16,
        alpha=32,
        lr=1e-4,
        epochs=1,
        batch_records=1,
        max_tokens=384,
        seed=0,
    )
    task = course.config(Path("unused"), {}).task
    tokenizer = AutoTokenizer.from_pretrained(base)
    chosen, tokens, labelled = 0, 0, 0
    for content in contents:  # enough records to fill one pack, in one step
        example = encode(content, tokenizer, task)
        if tokens + len(example.input_ids) > setting.micro_batch_tokens:
            break
        chosen += 1
        tokens += len(example.input_ids) - 1  # tokens after the last label are not fed
        labelled += sum(label != -100 for label in example.labels)
    course = course.model_copy(update={"shards": ((tuple(contents[:chosen]),),), "batch_records": chosen})
    with tempfile.TemporaryDirectory() as folder:
        bare = status_kib("VmRSS")  # everything is imported, nothing loaded
        config = course.config(Path(folder) / "run", {**asdict(setting), "hidden_states": "recompute"})
        bench = StageBench(course, config, Path(folder))
        bench.speed(bench.job(slices))
        peak = status_kib("VmHWM")
    work = describe_work(config, chosen, tokens / chosen, labelled / tokens, shape)
    planned = rank_memory(work, replace(engine_setting(config), micro_batch_tokens=tokens))
    return Row(setting, tokens, planned.total, 1024 * (peak - bare))


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 3.6))
    places = range(len(result.rows))
    panel.bar([at - 0.2 for at in places], [row.planned_bytes / GIB for row in result.rows], 0.4, label="plan")
    panel.bar([at + 0.2 for at in places], [row.measured_bytes / GIB for row in result.rows], 0.4, label="measured")
    names = [
        f"ZeRO {row.setting.zero_stage}, {row.tokens} tokens"
        + (",\ncheckpointing" if row.setting.gradient_checkpointing else "")
        for row in result.rows
    ]
    panel.set_xticks(list(places), names, fontsize=8)
    panel.set_ylabel("peak memory of a rank, GiB")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--layers-per-group", type=int, default=10)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        found = one(given.base, SETTINGS[given.one], given.layers_per_group)
        print("RESULT " + json.dumps(asdict(found)))
        return 0
    rows = []
    for number, setting in enumerate(SETTINGS):
        done = subprocess.run([sys.executable, *sys.argv, "--one", str(number)], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            raise SystemExit(f"{setting} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        measured = json.loads(lines[0].removeprefix("RESULT "))
        rows.append(Row(**measured | {"setting": setting}))
    result = Result(given.base.name, tuple(rows), proposals())
    console = Console(width=130)
    table = Table(title="peak memory of a rank at the deepest stage, CPU", title_justify="left")
    for name in ("ZeRO", "tokens per pack", "checkpointing", "plan GiB", "measured GiB", "measured / plan"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.setting.zero_stage),
            str(row.tokens),
            "yes" if row.setting.gradient_checkpointing else "no",
            f"{row.planned_bytes / GIB:.2f}",
            f"{row.measured_bytes / GIB:.2f}",
            f"{row.ratio:.2f}",
        )
    console.print(table)
    table = Table(title="proposed for Llama-13B, rank 32, bfloat16 (predicted, not measured)", title_justify="left")
    for name in (
        "machine",
        "groups x ranks",
        "ZeRO",
        "base",
        "tokens per pack",
        "checkpointing",
        "GiB per GPU",
        "of GiB",
    ):
        table.add_column(name, justify="left" if name == "machine" else "right")
    for each in result.proposals:
        table.add_row(
            each.machine,
            f"{each.groups} x {each.ranks}",
            str(each.zero_stage),
            each.quantize,
            f"{each.micro_batch_tokens:,}",
            "yes" if each.gradient_checkpointing else "no",
            f"{each.planned_bytes / GIB:.1f}",
            f"{each.memory_bytes / GIB:.0f}",
        )
    console.print(table)
    console.print(save(RESULTS / "memory_plan.json", result).name)
    draw(result, RESULTS / "memory_plan.png")
    return 0 if all(row.ratio <= 1 + MOST_ABOVE for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
