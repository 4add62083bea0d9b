"""The answer of `s3t plan`: an overview of a run in plain numbers, with units in the names.

In: `PlanOverview` and how the data was sized. Out: `PlanReport`, which is the `--json` document and
the input of the view. Computes nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from s3t_ray.plan.boundaries import Boundary
from s3t_ray.plan.overview import LayerGroup
from s3t_ray.run.reports import Report

if TYPE_CHECKING:
    from s3t_ray.data.balance import Balance
    from s3t_ray.plan.gpu_fit import GpuFit
    from s3t_ray.plan.overview import PlanOverview


class BalanceReport(Report):
    """Records per slice and per shard, without held-out ones."""

    smallest_slice: int
    largest_slice: int
    empty_slices: int
    smallest_shard: int
    largest_shard: int
    empty_shards: int
    unevenness: float
    """Size of the largest shard divided by the mean."""


class PlanData(Report):
    """The data of the plan."""

    records: int
    """Including held-out records."""
    held_out_records: int
    set_aside_rows: int
    """Malformed rows that the config leaves out; 0 if the data was not read."""
    tokens_per_record: float
    labelled_share: float
    """Share of tokens that carry loss."""
    records_from: Literal["option", "data"]
    tokens_from: Literal["option", "tokenizer", "characters"]
    """`characters`: an estimate of one token per 4 characters."""
    labelled_share_from: Literal["option", "assumed", "tokenizer", "characters"]
    """`assumed`: the upper bound."""
    sampled_records: int
    """Records whose tokens were counted; 0 if none were."""
    teaching_nothing: int
    """Records without a response within task.max_tokens; 0 if that was not checked."""
    balance: BalanceReport | None
    """How evenly the records are distributed; null if the data was not read."""
    notes: tuple[str, ...]
    """What was read and skipped, how columns were interpreted, and what is uneven."""


class GpuReport(Report):
    """The config on the GPUs of --gpu."""

    gpus: str
    count: int
    memory_bytes: int
    """Of one GPU."""
    bfloat16_teraflops: float | None
    """Peak of one GPU; null: not known."""
    fits: bool
    """Whether the config runs there unchanged."""
    obstacles: tuple[str, ...]
    """Why it does not."""
    rank_bytes: int
    """GPU memory that a rank needs with this config."""
    proposed: tuple[str, ...] | None
    """Settings to change, as --set takes them; empty: none; null: nothing fits these GPUs."""
    proposed_groups: int | None
    """Worker groups that then train in parallel."""
    proposed_rank_bytes: int | None
    least_seconds: float | None
    """Time of the complete training at the GPUs' peak rate, which no training reaches; null: unknown rate."""


def gpu_report(fit: GpuFit) -> GpuReport:
    gpus, proposal = fit.gpus, fit.proposal
    return GpuReport(
        gpus=gpus.name,
        count=gpus.count,
        memory_bytes=gpus.memory_bytes,
        bfloat16_teraflops=None if gpus.flops_per_second is None else gpus.flops_per_second / 1e12,
        fits=fit.fits,
        obstacles=fit.obstacles,
        rank_bytes=fit.present_bytes,
        proposed=None if proposal is None else fit.settings,
        proposed_groups=None if proposal is None else proposal.groups,
        proposed_rank_bytes=None if proposal is None else proposal.memory.total,
        least_seconds=fit.least_seconds,
    )


class Compute(Report):
    """Minimum floating point operations of a first training; a multiply and an add count as 2."""

    stages_flops: float
    hidden_states_flops: float
    """To compute the stored hidden states once."""
    total_flops: float
    unshared_flops: float
    """For the stages, if sequences shared no prefixes."""
    recomputed_flops: float
    """For the stages, if hidden states were computed at every step."""
    one_plain_model_flops: float
    """For a plain model, which cannot forget: all layer groups together on all data."""


class Healing(Report):
    """Mean cost of one deletion, healed eagerly."""

    stages: float
    tokens: float
    flops: float


class RankMemoryReport(Report):
    base_bytes: int
    adapters_bytes: int
    activations_bytes: int
    logits_bytes: int
    reserve_bytes: int
    total_bytes: int


class HiddenStates(Report):
    """Which boundaries are stored, and the rates that this choice is based on."""

    gigaflops_per_rank: float
    megabytes_per_second: float
    chosen_by: Literal["config", "plan"]
    boundaries: tuple[Boundary, ...]
    """Highest first; empty if states are recomputed with each pack."""


class StorageReport(Report):
    adapters_bytes: int
    hidden_states_bytes: int
    rows_bytes: int
    total_bytes: int


class ForecastReport(Report):
    """Uniform deletions until every shard is dead, without healing."""

    closed_form_deletions: float
    """If every slice is equally likely to be hit."""
    simulated_deletions: float
    """If every record is equally likely to be deleted, where the data was read."""
    simulated_standard_error: float
    one_sequence_deletions: float
    """With budget 1."""


class RetentionReport(Report):
    """Mean depth of a shard after deletions in it, without healing."""

    deletions: int
    depth: float
    most_depth: float
    """The most that any orders can keep."""


class PlanReport(Report):
    """`s3t plan`."""

    name: str
    shards: int
    slices: int
    budget: int
    order: str
    sequences: int
    stages: int
    stages_unshared: int
    orders: tuple[tuple[int, ...], ...]
    """Of shard 0."""
    layer_groups: tuple[LayerGroup, ...]
    data: PlanData
    training_tokens: float
    """Over all stages and epochs."""
    compute: Compute
    healing: Healing
    rank_memory: RankMemoryReport
    storage: StorageReport
    hidden_states: HiddenStates
    forecast: ForecastReport
    retention: tuple[RetentionReport, ...]
    gpus: GpuReport | None
    """With --gpu only."""


def balance_report(found: Balance) -> BalanceReport:
    """The report of a balance."""
    return BalanceReport(
        smallest_slice=found.smallest_slice,
        largest_slice=found.largest_slice,
        empty_slices=found.empty_slices,
        smallest_shard=found.smallest_shard,
        largest_shard=found.largest_shard,
        empty_shards=found.empty_shards,
        unevenness=found.unevenness,
    )


def plan_report(overview: PlanOverview, data: PlanData, fit: GpuFit | None = None) -> PlanReport:
    """The report of `overview`, which was computed for `data`. `fit`: how the config fits the given GPUs."""
    cost, memory, storage, forecast = overview.cost, overview.rank_memory, overview.storage, overview.forecast
    return PlanReport(
        name=overview.name,
        shards=overview.shards,
        slices=overview.slices,
        budget=overview.budget,
        order=overview.order_kind,
        sequences=overview.sequences,
        stages=overview.stages,
        stages_unshared=overview.stages_unshared,
        orders=overview.orders_by_shard[0],
        layer_groups=overview.layer_groups,
        # As in the costs: truncated to task.max_tokens, and one loss per record for classification.
        data=data.model_copy(
            update={
                "tokens_per_record": overview.work.record_tokens,
                "labelled_share": overview.work.labelled_share,
            }
        ),
        training_tokens=cost.training.tokens,
        compute=Compute(
            stages_flops=cost.training.flops,
            hidden_states_flops=cost.hidden_fill_flops,
            total_flops=cost.flops,
            unshared_flops=cost.unshared.flops,
            recomputed_flops=cost.recomputed.flops,
            one_plain_model_flops=cost.one_pass_flops,
        ),
        healing=Healing(stages=overview.healing.stages, tokens=overview.healing.tokens, flops=overview.healing.flops),
        rank_memory=RankMemoryReport(
            base_bytes=memory.base,
            adapters_bytes=memory.adapters,
            activations_bytes=memory.activations,
            logits_bytes=memory.logits,
            reserve_bytes=memory.reserve,
            total_bytes=memory.total,
        ),
        storage=StorageReport(
            adapters_bytes=storage.adapters,
            hidden_states_bytes=storage.hidden_states,
            rows_bytes=storage.rows,
            total_bytes=storage.total,
        ),
        hidden_states=HiddenStates(
            gigaflops_per_rank=overview.rates.flops_per_second / 1e9,
            megabytes_per_second=overview.rates.bytes_per_second / 1e6,
            chosen_by="plan" if overview.boundaries_by_plan else "config",
            boundaries=overview.boundaries,
        ),
        forecast=ForecastReport(
            closed_form_deletions=forecast.closed_form,
            simulated_deletions=forecast.simulated.mean,
            simulated_standard_error=forecast.simulated.standard_error,
            one_sequence_deletions=forecast.one_sequence,
        ),
        retention=tuple(
            RetentionReport(deletions=row.deletions, depth=row.depth.mean, most_depth=row.most)
            for row in overview.retention
        ),
        gpus=None if fit is None else gpu_report(fit),
    )
