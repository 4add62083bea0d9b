"""The sizes and rates of a stage, from which all costs are computed.

In: the config, the base model's shape, the number and length of the records. Out: `Work`, frozen. Pure.
Legend: a *slice* is a part of the data, a *layer group* a part of the model; depth 1 is the top group.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s3t_ray.config.schema import Config, Lora, ModelShape
from s3t_ray.config.tasks import TASKS
from s3t_ray.errors import ConfigError

Orders = Sequence[Sequence[int]]
Sizes = Sequence[Sequence[int]]
"""Records by shard and slice."""

ADAPTER_BYTES_PER_PARAMETER = 4
"""Adapters and task heads are trained and published in float32."""


@dataclass(frozen=True)
class Work:
    """Sizes of a run's data and model. Token counts are means; a token counts once per epoch."""

    shape: ModelShape
    shards: int
    slices: int
    layers_per_group: int
    lora_parameters_per_layer: int
    lora_rank_sum: int  # rank x number of adapted modules per layer
    head_parameters: int  # weights applied to each labelled token: the vocabulary head or the task head
    trained_head_parameters: int  # of the task head that a stage trains and publishes; 0: none
    activation_bytes: int  # bytes per number in a hidden state
    stored_depths: tuple[int, ...]  # depths of the stages whose input states are stored
    gradient_checkpointing: bool
    epochs: int
    slice_records: float
    record_tokens: float
    attended_tokens: float  # mean number of tokens that each token attends to
    labelled_share: float  # fraction of tokens with a loss
    isolated: bool = True  # a stage trains its own layer group; False: all of them (`lora.isolation: none`)

    @property
    def slice_tokens(self) -> float:
        """The tokens of one slice, each counted once."""
        return self.slice_records * self.record_tokens

    @property
    def training_tokens(self) -> float:
        """The tokens of all retained training records, each counted once."""
        return self.shards * self.slices * self.slice_tokens

    def boundary(self, depth: int) -> int:
        """The number of layers below those that a stage of this depth trains. None of them has an adapter."""
        return self.shape.layers - self.top_layers(depth)

    @property
    def all_groups(self) -> int:
        """The number of layers in all layer groups."""
        return self.slices * self.layers_per_group

    @property
    def trained_layers(self) -> int:
        """The number of layers that one stage trains."""
        return self.layers_per_group if self.isolated else self.all_groups

    def top_layers(self, depth: int) -> int:
        """The number of layers from the top of the model down to the lowest that a stage of this depth trains."""
        return depth * self.layers_per_group if self.isolated else self.all_groups

    def start_layer(self, depth: int) -> int:
        """The layer at which a stage of this depth starts: the highest stored boundary up to its own, or 0."""
        layer = self.boundary(depth)
        return max((below for below in map(self.boundary, self.stored_depths) if below <= layer), default=0)

    def adapter_parameters(self) -> int:
        """The number of parameters that one stage trains and publishes."""
        return self.trained_layers * self.lora_parameters_per_layer + self.trained_head_parameters


def describe_work(
    config: Config, records: int, tokens_per_record: float, labelled_share: float, shape: ModelShape
) -> Work:
    """The work of a run over `records` records (including held-out ones) of this mean length.

    Raises ConfigError if the layer groups do not fit the model or a figure is impossible.
    """
    try:
        config.check_depth(shape.layers)
    except ValueError as error:
        raise ConfigError(str(error), "lower slices or lora.layers_per_group") from error
    if records < 1 or tokens_per_record <= 0 or not 0 <= labelled_share <= 1:
        raise ConfigError(
            f"cannot plan for {records} records of {tokens_per_record} tokens, of which {labelled_share} are labelled",
            "use at least 1 record, more than 0 tokens, and a share from 0 to 1",
        )
    images = TASKS[config.task.kind].architecture == "vision"
    record_tokens = tokens_per_record if images else min(tokens_per_record, float(config.task.max_tokens))
    head_rows = config.task.head_rows
    whole = TASKS[config.task.kind].architecture != "decoder"
    # A task head has one dense layer of the hidden size before its outputs (BERT, RoBERTa), or none (ViT).
    task_head = shape.hidden * (head_rows if images else shape.hidden + head_rows) if head_rows else 0
    return Work(
        shape=shape,
        shards=config.shards,
        slices=config.slices,
        layers_per_group=config.lora.layers_per_group,
        lora_parameters_per_layer=lora_parameters(config.lora, shape),
        lora_rank_sum=config.lora.rank * len(_targets(config.lora, shape)),
        head_parameters=task_head or shape.head_parameters,
        trained_head_parameters=task_head,
        activation_bytes=2 if config.engine.precision == "bfloat16" else 4,
        stored_depths=_stored_depths(config, shape),
        gradient_checkpointing=config.engine.gradient_checkpointing,
        epochs=config.optimizer.epochs,
        slice_records=records * (1 - config.data.holdout) / (config.shards * config.slices),
        record_tokens=record_tokens,
        attended_tokens=record_tokens if whole else (record_tokens + 1) / 2,
        labelled_share=1 / record_tokens if head_rows else labelled_share,
        isolated=config.lora.isolation == "layers",
    )


def _stored_depths(config: Config, shape: ModelShape) -> tuple[int, ...]:
    """The depths from the config. Here `auto` means all, until `boundaries.py` chooses."""
    if config.engine.hidden_states == "recompute":
        return ()
    wanted = config.engine.stored_boundaries
    depths = range(1, config.slices + 1) if isinstance(wanted, str) else sorted(wanted)
    if config.lora.isolation == "none":  # one boundary, that of the deepest stage
        depths = [depth for depth in depths if depth == config.slices]
    return tuple(depth for depth in depths if shape.layers - depth * config.lora.layers_per_group > 0)


def forward_flops_per_token(work: Work) -> float:
    """The forward FLOPs per token of one frozen layer."""
    return 2 * work.shape.layer_parameters + attention_flops_per_token(work)


def attention_flops_per_token(work: Work) -> float:
    """The forward FLOPs per token of one layer's attention: scores and values over the attended tokens."""
    return 4 * work.shape.heads * work.shape.head_dim * work.attended_tokens


def lora_parameters(lora: Lora, shape: ModelShape) -> int:
    """The LoRA parameters of one layer: rank x (inputs + outputs), summed over the adapted linear modules."""
    sizes = linear_sizes(shape)
    square = (shape.hidden, shape.hidden)
    return sum(lora.rank * sum(sizes.get(_CANONICAL.get(name, name), square)) for name in _targets(lora, shape))


def linear_sizes(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear modules in one layer, by Llama's names."""
    hidden, inner = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    return sizes | {"gate_proj": (hidden, inner)} if shape.gated_mlp else sizes


def count_stages(orders_by_shard: Sequence[Orders]) -> Counter[int]:
    """The number of stages to train by depth: one per distinct prefix of a shard's orders."""
    total: Counter[int] = Counter()
    known: dict[int, Counter[int]] = {}  # shards usually share one object with their orders
    for orders in orders_by_shard:
        if id(orders) not in known:
            prefixes = {tuple(order[:length]) for order in orders for length in range(1, len(order) + 1)}
            known[id(orders)] = Counter(len(prefix) for prefix in prefixes)
        total += known[id(orders)]
    return total


def sized_stages(orders_by_shard: Sequence[Orders], sizes: Sizes, *, shared: bool = True) -> dict[int, float]:
    """The number of stages by depth, each weighted by its data relative to average slices.

    So figures that are linear in tokens are exact for the real sizes. `shared`: count a prefix that several sequences
    share once.
    """
    return _sum(orders_by_shard, sizes, shared=shared, chances=None)


def sized_healing(orders_by_shard: Sequence[Orders], sizes: Sizes) -> dict[int, float]:
    """`sized_stages` for the stages that one deletion makes stale, with equally likely records."""
    total = sum(map(sum, sizes))
    chances = [[size / total for size in shard] for shard in sizes]
    return _sum(orders_by_shard, sizes, shared=True, chances=chances)


def stale_stages(orders_by_shard: Sequence[Orders], sizes: Sizes) -> float:
    """The mean number of stages that one deletion makes stale, with equally likely records."""
    stale = 0.0
    learning: dict[int, np.ndarray] = {}  # stages trained on each slice, by the identity of the shard's orders
    for orders, records in zip(orders_by_shard, sizes, strict=True):
        if id(orders) not in learning:
            learning[id(orders)] = _learned(orders, len(records), shared=True).sum(axis=0)
        stale += float(learning[id(orders)] @ np.asarray(records, dtype=float))
    return stale / sum(map(sum, sizes))


def _sum(
    orders_by_shard: Sequence[Orders], sizes: Sizes, *, shared: bool, chances: Sequence[Sequence[float]] | None
) -> dict[int, float]:
    mean = sum(map(sum, sizes)) / sum(map(len, sizes))
    found: dict[int, float] = defaultdict(float)
    if not mean:
        return found
    learned: dict[int, np.ndarray] = {}  # shards usually share one object with their orders
    for shard, orders in enumerate(orders_by_shard):
        if id(orders) not in learned:
            learned[id(orders)] = _learned(orders, len(sizes[shard]), shared)
        learned_NL = learned[id(orders)]
        weights_N = learned_NL @ np.asarray(sizes[shard], dtype=float)
        if chances is not None:
            weights_N = weights_N * (learned_NL @ np.asarray(chances[shard]))
        by_depth = np.bincount(learned_NL.sum(axis=1), weights=weights_N)
        for depth in range(1, len(by_depth)):
            found[depth] += float(by_depth[depth]) / (depth * mean)
    return dict(found)


def _learned(orders: Orders, slices: int, shared: bool) -> np.ndarray:
    """int64 [stages, slices]: 1 if the stage trains on the slice."""
    prefixes = [tuple(order[:length]) for order in orders for length in range(1, len(order) + 1)]
    if shared:
        prefixes = list(dict.fromkeys(prefixes))
    learned_NL = np.zeros((len(prefixes), slices), dtype=np.int64)
    for at, prefix in enumerate(prefixes):
        learned_NL[at, list(prefix)] = 1
    return learned_NL


def _targets(lora: Lora, shape: ModelShape) -> tuple[str, ...]:
    return tuple(linear_sizes(shape)) if lora.targets == "all-linear" else lora.targets


_CANONICAL = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
"""BERT's and RoBERTa's module names -> Llama's names."""
