"""Computes the tables of docs/sizing.md from the same code as `s3t plan`: python docs/sizing.py

Writes them between the two marks of that page; a test keeps the page equal to this. Nothing here is measured: memory
and FLOPs are the plan's, hours follow from them and from the rates below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from s3t_ray.config.load import load_config
from s3t_ray.plan.overview import PlanOverview, plan_overview
from s3t_ray.plan.propose import KNOWN_GPUS, Gpus, Proposal, propose_for

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- computed by docs/sizing.py -->\n", "<!-- end -->\n"
RECORDS, TOKENS, LABELLED = 52_002, 182.0, 0.83
"""Alpaca, with Llama's tokenizer: records, mean tokens of one, share of tokens with a loss."""
GIB, EXA = 2**30, 1e18


@dataclass(frozen=True)
class Rate:
    """Dense bfloat16 peak of one GPU in FLOP/s, by its maker, and the share of it that we count on."""

    peak: float
    share: float


RATES = {
    "1 x H200": Rate(989e12, 0.40),
    "8 x H100 80 GB": Rate(989e12, 0.40),
    "8 x A100 80 GB": Rate(312e12, 0.40),
    "4 x 24 GB": Rate(121e12, 0.15),  # L4; 8-bit products are unpacked at every step
}
PLANS: tuple[tuple[str, dict[str, object]], ...] = (
    ("as SISA", {"budget": 1}),
    ("paper", {"budget": 4}),
    ("chains", {"budget": 6, "order.kind": "chains"}),
)


def tables() -> str:
    """Both tables as Markdown."""
    return f"{_hardware()}\n{_plans()}"


def _hardware() -> str:
    rows = [
        (
            gpus.name,
            proposal.groups,
            _engine(proposal),
            f"{proposal.memory.total / GIB:.0f} of {gpus.memory_bytes / GIB:.0f}",
            f"{_rate(gpus) / 1e12:,.0f}",
            _hours(overview.cost.flops, gpus),
            _hours(overview.healing.flops, gpus),
        )
        for gpus in KNOWN_GPUS
        for proposal in [propose_for(_overview({}).work, gpus)]
        for overview in [_overview({"engine.gradient_checkpointing": proposal.gradient_checkpointing})]
    ]
    return _table(
        (
            "GPUs",
            "worker groups",
            "engine",
            "GiB per GPU",
            "TFLOP/s per GPU (assumed)",
            "hours to train",
            "hours to heal one deletion",
        ),
        rows,
    )


def _plans() -> str:
    h100 = next(gpus for gpus in KNOWN_GPUS if gpus.name.startswith("8 x H100"))
    rows = []
    for name, changes in PLANS:
        plan = _overview(changes)
        rows.append(
            (
                name,
                plan.budget,
                plan.order_kind,
                plan.stages,
                f"{plan.cost.flops / EXA:.1f}",
                f"{plan.cost.flops / _rate(h100) / 3600:.1f}",
                f"{plan.storage.total / GIB:,.0f}",
                f"{plan.forecast.simulated.mean:.0f}",
                " / ".join(f"{row.depth.mean:.2f}" for row in plan.retention),
                f"{plan.healing.flops / EXA:.2f}",
            )
        )
    return _table(
        (
            "plan",
            "budget",
            "order",
            "stages",
            "EFLOP",
            "H100 hours",
            "GiB stored",
            "deletions until all are dead",
            "depth after 1 / 2 / 3 / 4 in a shard",
            "EFLOP to heal one",
        ),
        rows,
    )


def _overview(changes: dict[str, object]) -> PlanOverview:
    config = load_config("llama-2-13b", [f"{name}={value}" for name, value in changes.items()])
    assert config.model.shape is not None
    return plan_overview(config, RECORDS, TOKENS, LABELLED, config.model.shape)


def _engine(proposal: Proposal) -> str:
    base = "bfloat16" if proposal.quantize == "none" else f"{proposal.quantize} base"
    split = f", ZeRO {proposal.zero_stage} over {proposal.ranks} GPUs" if proposal.ranks > 1 else ""
    checkpoints = ", checkpointing" if proposal.gradient_checkpointing else ""
    return f"{base}, {proposal.micro_batch_tokens:,} tokens per pass{split}{checkpoints}"


def _rate(gpus: Gpus) -> float:
    rate = RATES[gpus.name]
    return rate.peak * rate.share


def _hours(flops: float, gpus: Gpus) -> str:
    return f"{flops / (_rate(gpus) * gpus.count) / 3600:.1f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [tuple(head), *(tuple(row) for row in rows)]
    text = [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]
    return "\n".join((text[0], "|" + "---|" * len(lines[0]), *text[1:])) + "\n"


def page() -> str:
    """The page with the tables of today."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
