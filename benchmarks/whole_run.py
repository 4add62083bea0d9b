"""Compares a complete run of our engine with Hugging Face's Trainer, and measures the gain of each technique.

    python benchmarks/whole_run.py --base demo-model [--data FILE.json] [--seeds 3] [--work FOLDER]

A run has m shards x L slices x B sequences. The baseline ("plain") is Hugging Face's Trainer with PEFT, one process per
stage, full forward pass and padded batches: once as the published script runs it (random batches, gradient
checkpointing), once with its best settings (batches of similar length, no checkpointing). All use the same base,
records, prompts, optimizer, order of slices and held-out records, with one thread. Wall and CPU seconds are of entire
processes, including imports and loading; "training" excludes those. CPU seconds mean more on a shared machine.
`--work` keeps finished parts, so that an interrupted benchmark can continue. Writes benchmarks/results/whole_run.json
and whole_run.png, or files named after `--name`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

from benchlib.course import Course, share_out
from benchlib.instructions import instructions
from benchlib.whole_run import (
    ABLATIONS,
    BEST,
    ONE_PROCESS_A_STAGE,
    OURS,
    PLAIN,
    Part,
    measured,
    run_ours,
    run_plain,
)
from rich.console import Console
from rich.table import Table

from s3t_ray.config.schema import Config
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Column:
    """One system over its seeds."""

    system: str
    how: str
    record_visits: int
    wall_seconds: float
    cpu_seconds: float
    training_seconds: float
    losses: tuple[float, ...]  # per seed: mean over the sequences

    @property
    def records_per_second(self) -> float:
        return self.record_visits / self.wall_seconds

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def loss_deviation(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        if len(self.losses) < 2:
            return 0.0
        return sqrt(sum((loss - self.loss) ** 2 for loss in self.losses) / (len(self.losses) - 1))


@dataclass(frozen=True)
class Shared:
    """Gain of training shared prefixes once, by the plan: FLOPs without sharing divided by FLOPs with it."""

    slices: int
    sequences: int
    order: str
    saved: float


@dataclass(frozen=True)
class Result:
    shards: int
    slices: int
    sequences: int
    records_a_slice: int
    layers_per_group: int
    stages: int
    tokens_a_record: float
    labelled_share: float
    base_loss: float
    columns: tuple[Column, ...]
    ablations: tuple[Column, ...]
    prefixes: tuple[Shared, ...]


def column(parts: Sequence[Part], how: str, visits: int) -> Column:
    """Means over the seeds."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    losses = [[loss for name, loss in part.held_out_loss.items() if name != "base"] for part in parts]
    return Column(
        parts[0].system,
        how,
        visits,
        mean([part.wall_seconds for part in parts]),
        mean([part.cpu_seconds for part in parts]),
        mean([part.training_seconds for part in parts]),
        tuple(mean(each) for each in losses),
    )


def prefix_sharing(course: Course) -> tuple[Shared, ...]:
    """For this run, and for plans whose orders share more."""
    from benchlib.stage_speed import model_shape

    from s3t_ray.plan.cost import plan_cost
    from s3t_ray.plan.orders import orders
    from s3t_ray.plan.work import describe_work

    found = []
    for slices, budget, kind in (
        (3, 2, "cyclic"),
        (3, 6, "cyclic"),
        (4, 6, "chains"),
        (4, 24, "cyclic"),
        (6, 20, "chains"),
    ):
        sizes = {"slices": slices, "budget": budget, "order": {"kind": kind}, "lora": {"layers_per_group": 1}}
        config = Config.model_validate(course.config(Path("unused"), {}).model_dump() | sizes)
        work = describe_work(config, 1000, 100.0, 0.55, model_shape(course.base))
        cost = plan_cost(work, [orders(config, 0)])
        found.append(Shared(slices, budget, kind, cost.unshared.flops / cost.training.flops))
    return tuple(found)


def show(result: Result, console: Console) -> None:
    table = Table(title="a complete run", title_justify="left")
    for name in (
        "system",
        "how",
        "seeds",
        "records/s",
        "wall s",
        "CPU s",
        "training s",
        "speedup of ours: wall",
        "CPU",
        "training",
        "held-out loss",
    ):
        table.add_column(name, justify="left" if name in ("system", "how") else "right")
    ours = result.columns[0]
    for each in result.columns:
        table.add_row(
            each.system,
            each.how,
            str(len(each.losses)),
            f"{each.records_per_second:.2f}",
            f"{each.wall_seconds:.0f}",
            f"{each.cpu_seconds:.0f}",
            f"{each.training_seconds:.0f}",
            f"{each.wall_seconds / ours.wall_seconds:.2f}x",
            f"{each.cpu_seconds / ours.cpu_seconds:.2f}x",
            f"{each.training_seconds / ours.training_seconds:.2f}x",
            f"{each.loss:.4f}" + (f" ± {each.loss_deviation:.4f}" if len(each.losses) > 1 else ""),
        )
    console.print(table)
    console.print(f"held-out loss of the base alone: {result.base_loss:.4f}", highlight=False)
    table = Table(title="ours without one technique (one seed)", title_justify="left")
    for name in ("without", "wall s", "CPU s", "slower: wall", "CPU", "held-out loss"):
        table.add_column(name, justify="left" if name == "without" else "right")
    for each in result.ablations:
        table.add_row(
            each.system,
            f"{each.wall_seconds:.0f}",
            f"{each.cpu_seconds:.0f}",
            f"{each.wall_seconds / result.ablations[0].wall_seconds:.2f}x",
            f"{each.cpu_seconds / result.ablations[0].cpu_seconds:.2f}x",
            f"{each.loss:.4f}",
        )
    console.print(table)
    for shared in result.prefixes:
        console.print(
            f"prefix sharing, L = {shared.slices}, B = {shared.sequences}, {shared.order}: "
            f"{shared.saved:.2f}x (by the plan)",
            highlight=False,
        )


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4))
    for panel, columns, colour in ((left, result.columns, "#0072B2"), (right, result.ablations, "#E69F00")):
        names = [each.system for each in columns][::-1]
        bars = panel.barh(names, [each.cpu_seconds for each in columns][::-1], color=colour)
        panel.bar_label(bars, fmt="%.0f s", padding=3, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("CPU seconds of the complete run")
    left.set_title("against plain Trainer", fontsize=10)
    right.set_title("ours without one technique", fontsize=10)
    figure.suptitle(
        f"{result.shards} shards x {result.slices} slices x {result.sequences} sequences, "
        f"{result.layers_per_group} layers per group, {result.records_a_slice} records per slice, "
        "SmolLM2-135M, one thread",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--data", type=Path, help="JSON list of instruction, input, output; default: docstrings")
    parser.add_argument("--work", type=Path, help="folder for finished parts, to continue from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--published-seeds", type=int, default=3, help="seeds of plain as published, the slowest")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--records", type=int, default=6, help="a slice")
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=384)
    parser.add_argument("--batch", type=int, default=4, help="records per optimizer step")
    parser.add_argument("--layers-per-group", type=int, default=10)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--name", default="whole_run", help="name of the JSON and the picture")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    console = Console(width=150)

    def say(line: str) -> None:
        console.print(line, highlight=False)

    from transformers import AutoConfig, AutoTokenizer

    from s3t_ray.data.readers.inputs import encode

    orders = tuple(
        tuple((start + step) % given.slices for step in range(given.slices)) for start in range(min(2, given.slices))
    )

    def course(seed: int) -> Course:
        return Course(
            base=given.base.absolute(),
            orders=orders,
            layers=AutoConfig.from_pretrained(given.base).num_hidden_layers,
            layers_per_group=given.layers_per_group,
            rank=16,
            alpha=32,
            lr=given.lr,
            epochs=1,
            batch_records=given.batch,
            max_tokens=given.max_tokens,
            seed=seed,
            **share_out(instructions(given.data), given.shards, given.slices, given.records, given.held_out),
        )

    first = course(0)
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    task = first.config(Path("unused"), {}).task
    examples = [encode(each, tokenizer, task) for shard in first.shards for piece in shard for each in piece]
    tokens = sum(len(each.input_ids) for each in examples)
    labelled = sum(label != -100 for each in examples for label in each.labels)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        parts: dict[str, list[Part]] = {OURS: [], PLAIN: [], BEST: []}
        without: list[Part] = []
        for seed in range(given.seeds):
            now = course(seed)
            parts[OURS].append(measured(work, now, OURS, partial(run_ours, now, without="nothing"), say))
            for system in (PLAIN, BEST) if seed < given.published_seeds else (BEST,):
                parts[system].append(measured(work, now, system, partial(run_plain, now, system=system), say))
            without = without or [
                measured(work, now, name, partial(run_ours, now, without=name), say)
                for name in (*ABLATIONS, ONE_PROCESS_A_STAGE)
            ]
    visits = first.record_visits
    how = f"batches of {given.batch}, one process per stage"
    result = Result(
        given.shards,
        given.slices,
        len(orders),
        given.records,
        given.layers_per_group,
        first.stages,
        tokens / len(examples),
        labelled / tokens,
        parts[OURS][0].held_out_loss["base"],
        (
            column(parts[OURS], f"steps of {given.batch}, packed, one process", visits),
            column(parts[PLAIN], f"random {how}, gradient checkpointing", visits),
            column(parts[BEST], f"{how}, of similar length, no checkpointing", visits),
        ),
        (
            column(parts[OURS][:1], "", visits),
            *(column([part], "", visits) for part in without),
        ),
        prefix_sharing(first),
    )
    show(result, console)
    console.print(save(RESULTS / f"{given.name}.json", result).name)
    draw(result, RESULTS / f"{given.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
