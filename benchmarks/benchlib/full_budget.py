"""Computes the full budget, all L! orders of a shard's slices: savings of shared prefixes, and of fewer orders.

In: nothing. Out: a section with the stages and FLOPs for L = 2..6, by formula and by the plan's own functions. All L!
orders of L slices have L! / (L - d)! different stages of depth d, instead of L! at each depth.
"""

from __future__ import annotations

from itertools import permutations
from math import factorial, perm

from benchlib.experiment_file import line
from s3t_ray.config.model_shape import ModelShape
from s3t_ray.config.schema import Config
from s3t_ray.plan.cost import plan_cost
from s3t_ray.plan.orders_chains import maximal_chains
from s3t_ray.plan.work import count_stages, describe_work
from s3t_ray.report.page_model import Cell, ReportChart, ReportSection, ReportTable

SHARDS = 5
LAYERS = 24
SHAPE = ModelShape(
    layers=LAYERS,
    hidden=1024,
    intermediate=4096,
    heads=16,
    kv_heads=16,
    vocabulary=1000,
    gated_mlp=False,
    tied_embeddings=True,
)
"""Layers of ViT-large, divided equally among the slices."""
RECORDS, TOKENS = 50_000, 197


def shared_stages(slices: int) -> int:
    """Distinct stages of all L! orders of one shard: the sum of L! / (L - d)! over depths d."""
    return sum(perm(slices, depth) for depth in range(1, slices + 1))


def full_budget() -> ReportSection:
    """Stages and FLOPs of all orders, with shared prefixes and without, and of the chains that keep the same depth."""
    rows: list[tuple[Cell, ...]] = []
    shared, chains = [], []
    sizes = range(2, 7)
    for slices in sizes:
        work = describe_work(_config(slices), RECORDS, TOKENS, 1.0, SHAPE)
        every = [tuple(permutations(range(slices)))] * SHARDS
        few = [maximal_chains(slices)] * SHARDS
        cost, chain_cost = plan_cost(work, every), plan_cost(work, few)
        counted = count_stages(every).total()
        if counted != SHARDS * shared_stages(slices):
            raise SystemExit(f"{slices} slices have {counted} stages, but the formula gives another number")
        shared.append(cost.training.flops / cost.unshared.flops)
        chains.append(chain_cost.training.flops / cost.unshared.flops)
        rows.append(
            (
                slices,
                factorial(slices),
                SHARDS * slices * factorial(slices),
                counted,
                1 - cost.training.flops / cost.unshared.flops,
                len(few[0]),
                count_stages(few).total(),
                chain_cost.training.flops / cost.training.flops,
            )
        )
    chart = ReportChart(
        stem="full-budget",
        title="Training all orders of a shard's slices, ViT-large",
        x_label="slices",
        y_label="FLOPs relative to L! separate orders",
        series=(
            line("all L! orders, shared prefixes trained once", sizes, shared),
            line("the chains that keep the same depth after any deletions", sizes, chains),
        ),
        from_zero=True,
        caption=f"By the functions of `s3t plan`: {SHARDS} shards, {LAYERS} layers in as many groups as slices.",
    )
    table = ReportTable(
        stem="full-budget-table",
        title="Stages and FLOPs of the full budget",
        columns=(
            "slices", "orders L!", "stages, not shared", "stages, shared", "FLOPs saved by sharing", "chains",
            "stages of the chains", "their FLOPs relative to all orders",
        ),
        rows=tuple(rows),
        caption="All orders and the chains serve equally deep models after any deletions. FLOPs of training, without "
        "the single pass that computes the stored hidden states.",
    )  # fmt: skip
    return ReportSection(title="", charts=(chart,), tables=(table,))


def _config(slices: int) -> Config:
    return Config.model_validate(
        {
            "name": "claims",
            "shards": SHARDS,
            "slices": slices,
            "budget": factorial(slices),
            "order": {"kind": "random"},
            "model": {"path": "none"},
            "task": {"kind": "image_classification", "labels": ["a", "b"]},
            "data": {"path": "none"},
            "lora": {"layers_per_group": LAYERS // slices, "alpha": 16},
            "storage": {"uri": "none"},
        }
    )
