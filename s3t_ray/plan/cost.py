"""Computes the cost of a plan in tokens, FLOPs and bytes of storage, and the cost of healing one deletion.

In: `Work` and the orders. Out: frozen figures with their unit in the name. Pure. FLOPs are the
unavoidable ones (a multiply-add counts as 2), a lower bound to compare measured times with. A stage
that several sequences share counts once.

Sources: 2N FLOPs per token for a forward pass through N weights and 2N for the gradient of the
activations (Kaplan et al. 2020, 2001.08361); the frozen base has no weight gradients, so LoRA
costs about 4N, not 6N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from s3t_ray.plan.boundaries import fill_layer_tokens, stored_state_tokens
from s3t_ray.plan.work import (
    ADAPTER_BYTES_PER_PARAMETER,
    Orders,
    Sizes,
    Work,
    attention_flops_per_token,
    count_stages,
    forward_flops_per_token,
    sized_healing,
    sized_stages,
    stale_stages,
)

ROW_BYTES_PER_TOKEN = 2.8
"""Parquet (snappy) bytes per token of canonical JSON with id and 32-byte digest, measured on 999
Alpaca records of 182 tokens (zstd: 2.0, uncompressed: 4.8)."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage over all epochs."""

    depth: int
    tokens: float
    labelled_tokens: float
    forward_flops: float  # through the frozen layers that run
    backward_flops: float  # activation gradient, from the top down to the bottom of the trained group
    recompute_flops: float  # gradient checkpointing's second forward pass
    adapter_flops: float
    head_flops: float

    @property
    def flops(self) -> float:
        return self.forward_flops + self.backward_flops + self.recompute_flops + self.adapter_flops + self.head_flops


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a set of stages, each trained once."""

    stages: float
    tokens: float
    flops: float


@dataclass(frozen=True)
class PlanCost:
    """The cost of a complete plan."""

    training: TrainingCost  # every distinct stage once
    unshared: TrainingCost  # if no sequences shared a prefix
    recomputed: TrainingCost  # the stages of `training`, but running all layers at every step
    hidden_fill_flops: float  # once per run: computing the stored hidden states; 0 if none are stored
    one_pass_flops: float  # for comparison: one model without unlearning, all groups at once on all data

    @property
    def flops(self) -> float:
        """The total of a first training."""
        return self.training.flops + self.hidden_fill_flops

    @property
    def saved_by_stored_states(self) -> float:
        """The fraction of FLOPs that stored hidden states save in a first training; 0 if they are recomputed."""
        return 1 - self.flops / self.recomputed.flops


@dataclass(frozen=True)
class StorageBytes:
    """The storage of a fully trained run. Rows are an estimate; the rest is exact except for file headers."""

    adapters: int
    hidden_states: int
    rows: int

    @property
    def total(self) -> int:
        return self.adapters + self.hidden_states + self.rows


def stage_cost(work: Work, depth: int, stored: bool | None = None) -> StageCost:
    """The cost of a stage of this depth, which trains on `depth` slices.

    With N weights per layer, P LoRA parameters per layer, g layers per group and depth d, a token costs
    - forward: 2N per layer above the stored boundary that it starts from (d g layers from its own boundary, all
      layers from none),
    - backward: 2N x d g; checkpointing runs these d g layers forward once more,
    - attention, in addition: 4 D (T + 1) / 2 per layer forward (two products over (T + 1) / 2 keys on average,
      D = heads x head size), and twice that backward,
    - adapters: 4P x d g, plus 2P x g for the weight gradients of the group in training (all groups without
      isolation, where d g is L g at every depth),
    - head: 4 per weight and labelled token (6 if the head is trained).
    `stored` True: as if its own boundary were stored; False: as if none were; None: as in `work`.
    """
    shape, group = work.shape, work.top_layers(depth)
    tokens = work.epochs * depth * work.slice_tokens
    labelled = tokens * work.labelled_share
    start = work.start_layer(depth) if stored is None else work.boundary(depth) if stored else 0
    forward_layer = forward_flops_per_token(work)
    attention_layer = attention_flops_per_token(work)
    head_rate = 6 if work.trained_head_parameters else 4
    return StageCost(
        depth=depth,
        tokens=tokens,
        labelled_tokens=labelled,
        forward_flops=tokens * forward_layer * (shape.layers - start),
        backward_flops=tokens * group * (2 * shape.layer_parameters + 2 * attention_layer),
        recompute_flops=tokens * forward_layer * group if work.gradient_checkpointing else 0.0,
        adapter_flops=tokens * work.lora_parameters_per_layer * (4 * group + 2 * work.trained_layers),
        head_flops=labelled * head_rate * work.head_parameters,
    )


def training_cost(work: Work, stages_by_depth: Mapping[int, float], stored: bool | None = None) -> TrainingCost:
    """The total over `stages_by_depth` (depth -> number of stages; a fraction is an expectation)."""
    costs = [(number, stage_cost(work, depth, stored)) for depth, number in sorted(stages_by_depth.items())]
    return TrainingCost(
        stages=sum(number for number, _ in costs),
        tokens=sum(number * cost.tokens for number, cost in costs),
        flops=sum(number * cost.flops for number, cost in costs),
    )


def plan_cost(work: Work, orders_by_shard: Sequence[Orders], sizes: Sizes | None = None) -> PlanCost:
    """The cost of training every wanted stage from scratch. `sizes`: records by shard and slice; None: even slices."""
    stages: Mapping[int, float] = count_stages(orders_by_shard)
    count = sum(stages.values())
    sequences = sum(len(orders) for orders in orders_by_shard)
    unshared: Mapping[int, float] = dict.fromkeys(range(1, work.slices + 1), sequences)
    if sizes is not None:
        stages = sized_stages(orders_by_shard, sizes)
        unshared = sized_stages(orders_by_shard, sizes, shared=False)
    whole = stage_cost(work, work.slices, stored=False)  # of one shard
    other_groups = work.all_groups - work.trained_layers
    weight_gradients = whole.tokens * work.lora_parameters_per_layer * 2 * other_groups
    return PlanCost(
        training=replace(training_cost(work, stages), stages=count),
        unshared=replace(training_cost(work, unshared), stages=sequences * work.slices),
        recomputed=replace(training_cost(work, stages, stored=False), stages=count),
        hidden_fill_flops=fill_layer_tokens(work, orders_by_shard) * forward_flops_per_token(work),
        one_pass_flops=work.shards * (whole.flops + weight_gradients),
    )


def healing_cost(work: Work, orders_by_shard: Sequence[Orders], sizes: Sizes | None = None) -> TrainingCost:
    """The mean cost of healing one deletion eagerly, in a slice picked uniformly from all shards.

    A deletion in slice s makes every stage trained on s stale. So a stage of depth d is stale with
    probability d / L if its shard is hit, which has probability 1 / m. With `sizes`, the mean is over records.
    """
    slices = work.slices * len(orders_by_shard)
    if sizes is None:
        even = {depth: number * depth / slices for depth, number in count_stages(orders_by_shard).items()}
        return training_cost(work, even)
    cost = training_cost(work, sized_healing(orders_by_shard, sizes))
    return replace(cost, stages=stale_stages(orders_by_shard, sizes))


def storage_bytes(work: Work, orders_by_shard: Sequence[Orders]) -> StorageBytes:
    """The bytes of adapters, stored hidden states and retained rows of a fully trained run.

    There is one hidden state per token and stored boundary that a stage needs. All sequences and
    epochs share them (13B in bfloat16: 10,240 bytes per token and boundary).
    """
    stages = count_stages(orders_by_shard).total()
    states = stored_state_tokens(work, orders_by_shard)
    return StorageBytes(
        adapters=stages * work.adapter_parameters() * ADAPTER_BYTES_PER_PARAMETER,
        hidden_states=round(states * work.shape.hidden * work.activation_bytes),
        rows=round(work.training_tokens * ROW_BYTES_PER_TOKEN),
    )
