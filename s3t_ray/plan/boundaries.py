"""Chooses the boundaries whose hidden states to store, by their cost and savings over a first training.

In: `Work`, the orders, the rates of a rank, a limit in bytes. Out: the depths whose input states are stored, and a
summary of each boundary. Pure. If a stage's boundary is not stored, the stage recomputes its input states at every
visit of a record from the nearest stored boundary below (or from the tokens). The choice therefore never affects the
weights.

A boundary costs its bytes (written once, read at each visit). It saves running the layers below it at each visit, for
its own stages and for those that start from it. Reads are counted in full although they overlap with computation, so
a choice that pays off by this estimate pays off even more in practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from s3t_ray.config.checks import is_remote
from s3t_ray.config.schema import Config
from s3t_ray.plan.work import Orders, Work, count_stages, forward_flops_per_token

GIB = 2**30
ASSUMED_CPU_FLOPS = 50e9
"""Per second and thread in float32: about half of what a server core reaches."""
ASSUMED_GPU_FLOPS = {"bfloat16": 300e12, "float32": 30e12}
ASSUMED_LOCAL_BYTES = 1e9
"""Bytes per second from an NVMe disk."""
ASSUMED_REMOTE_BYTES = 2e8
MOST_PARTIAL_CHOICES = 400
"""Maximum number of partial choices kept per boundary if bytes are limited. Beyond it, the result is near-optimal."""


@dataclass(frozen=True)
class Rates:
    """The speed of one rank."""

    flops_per_second: float
    bytes_per_second: float  # reading or writing hidden states


@dataclass(frozen=True)
class Boundary:
    """One boundary in the plan."""

    depth: int  # depth of the stages above it
    layer: int
    stored: bool
    start_layer: int  # the layer where its states are read, or from which they are computed; 0: from the tokens
    bytes: int  # size of its states, whether stored or not
    saved_seconds: float  # rank time saved by storing it, with the others unchanged; negative: time lost


@dataclass(frozen=True)
class _Use:
    """How the stages of one depth use their input states."""

    depth: int
    layer: int
    visits: float  # tokens x epochs, over all stages of the depth
    tokens: float  # tokens whose states at least one stage needs


def rates(config: Config) -> Rates:
    """The speed of a rank, from the config or from assumptions."""
    on_gpu, workers = config.workers.gpus_per_rank > 0, config.workers
    assumed = ASSUMED_GPU_FLOPS[config.engine.precision] if on_gpu else ASSUMED_CPU_FLOPS * config.engine.threads
    given = config.storage.megabytes_per_second
    stored = ASSUMED_REMOTE_BYTES if is_remote(config.storage.uri) else ASSUMED_LOCAL_BYTES
    return Rates(
        flops_per_second=1e9 * workers.gigaflops_per_rank if workers.gigaflops_per_rank else assumed,
        bytes_per_second=1e6 * given if given else stored,
    )


def choose_depths(config: Config, work: Work, orders_by_shard: Sequence[Orders]) -> tuple[int, ...]:
    """The depths whose input states are stored: as configured, or with `auto` those that save time."""
    if config.engine.stored_boundaries != "auto" or config.engine.hidden_states == "recompute":
        return work.stored_depths
    limit = config.storage.hidden_states_gib
    return best_depths(work, orders_by_shard, rates(config), None if limit is None else limit * GIB)


def best_depths(
    work: Work, orders_by_shard: Sequence[Orders], speed: Rates, limit_bytes: float | None
) -> tuple[int, ...]:
    """The set of depths that takes the least time and whose states fit within the limit.

    Dynamic programming from the lowest boundary up: for each possible last stored boundary, keep the choices that are
    Pareto-optimal in bytes and seconds.
    """
    uses = _uses(work, orders_by_shard)
    # The last stored boundary (-1: none) -> (bytes, seconds, indices of the stored boundaries).
    fronts: dict[int, list[tuple[float, float, tuple[int, ...]]]] = {-1: [(0.0, 0.0, ())]}
    for index, use in enumerate(uses):
        size = use.tokens * _state_bytes(work)
        candidates = []
        for last, front in fronts.items():
            gap = _gap_seconds(work, uses, speed, last, index)
            own = _stored_seconds(work, uses, speed, last, index)
            candidates += [(used + size, spent + gap + own, (*kept, index)) for used, spent, kept in front]
        fronts[index] = _best(candidates, limit_bytes)
    ends = [
        (spent + _gap_seconds(work, uses, speed, last, len(uses)), used, kept)
        for last, front in fronts.items()
        for used, spent, kept in front
    ]
    return tuple(sorted(uses[index].depth for index in min(ends)[2]))


def boundaries(work: Work, orders_by_shard: Sequence[Orders], speed: Rates) -> tuple[Boundary, ...]:
    """Every boundary above layer 0, the highest first, for the stored depths of `work`."""
    chosen = frozenset(work.stored_depths)
    return tuple(
        Boundary(
            depth=use.depth,
            layer=use.layer,
            stored=use.depth in chosen,
            start_layer=work.start_layer(use.depth),
            bytes=round(use.tokens * _state_bytes(work)),
            saved_seconds=states_seconds(work, orders_by_shard, speed, chosen - {use.depth})
            - states_seconds(work, orders_by_shard, speed, chosen | {use.depth}),
        )
        for use in reversed(_uses(work, orders_by_shard))
    )


def states_seconds(work: Work, orders_by_shard: Sequence[Orders], speed: Rates, stored_depths: frozenset[int]) -> float:
    """The rank time that a first training spends on input states if those of `stored_depths` are stored."""
    layer_seconds = forward_flops_per_token(work) / speed.flops_per_second
    transfer_seconds = _state_bytes(work) / speed.bytes_per_second
    chosen = replace(work, stored_depths=tuple(stored_depths))
    seconds = 0.0
    for use in _uses(work, orders_by_shard):
        start = chosen.start_layer(use.depth)
        seconds += use.visits * ((use.layer - start) * layer_seconds + (transfer_seconds if start else 0.0))
        if use.depth in stored_depths:
            seconds += use.tokens * transfer_seconds
    return seconds + fill_layer_tokens(chosen, orders_by_shard) * layer_seconds


def fill_layer_tokens(work: Work, orders_by_shard: Sequence[Orders]) -> float:
    """Tokens x layers that filling the store takes: each record runs up to the highest boundary that a stage needs.

    The same pass also produces the boundaries below.
    """
    below, layers = 0, 0.0
    for use in _uses(work, orders_by_shard):
        if use.depth in work.stored_depths:
            layers += use.tokens * (use.layer - below)
            below = use.layer
    return layers


def stored_state_tokens(work: Work, orders_by_shard: Sequence[Orders]) -> float:
    """The number of stored hidden states, each of one token at one boundary."""
    return sum(use.tokens for use in _uses(work, orders_by_shard) if use.depth in work.stored_depths)


def _uses(work: Work, orders_by_shard: Sequence[Orders]) -> list[_Use]:
    """The use of each boundary above layer 0, the lowest first."""
    stages = count_stages(orders_by_shard)
    slices: dict[int, int] = dict.fromkeys(range(1, work.slices + 1), 0)
    known: dict[int, list[int]] = {}  # shards usually share one object with their orders
    for orders in orders_by_shard:
        if id(orders) not in known:
            known[id(orders)] = [len({s for order in orders for s in order[:depth]}) for depth in slices]
        for depth, number in zip(slices, known[id(orders)], strict=True):
            slices[depth] += number
    visits = {depth: stages[depth] * depth * work.slice_tokens * work.epochs for depth in slices}
    if not work.isolated:  # all stages start at the boundary of the deepest
        visits = {work.slices: sum(visits.values())}
    return [
        _Use(depth, work.boundary(depth), visits[depth], slices[depth] * work.slice_tokens)
        for depth in sorted(visits, reverse=True)
        if work.boundary(depth) > 0
    ]


def _stored_seconds(work: Work, uses: Sequence[_Use], speed: Rates, last: int, index: int) -> float:
    """The time to compute boundary `index` from the previous stored one, write it, and read it at each visit."""
    use, below = uses[index], uses[last].layer if last >= 0 else 0
    layer_seconds = forward_flops_per_token(work) / speed.flops_per_second
    transfer_seconds = _state_bytes(work) / speed.bytes_per_second
    return use.tokens * ((use.layer - below) * layer_seconds + transfer_seconds) + use.visits * transfer_seconds


def _gap_seconds(work: Work, uses: Sequence[_Use], speed: Rates, last: int, index: int) -> float:
    """The time to recompute the boundaries between `last` and `index`, none of which is stored, at each visit."""
    below = uses[last].layer if last >= 0 else 0
    layer_seconds = forward_flops_per_token(work) / speed.flops_per_second
    read_seconds = _state_bytes(work) / speed.bytes_per_second if last >= 0 else 0.0
    return sum(use.visits * ((use.layer - below) * layer_seconds + read_seconds) for use in uses[last + 1 : index])


def _best(
    candidates: list[tuple[float, float, tuple[int, ...]]], limit_bytes: float | None
) -> list[tuple[float, float, tuple[int, ...]]]:
    """The Pareto-optimal candidates within the limit, by bytes and seconds; without a limit, only the fastest."""
    if limit_bytes is None:
        return [min(candidates, key=lambda choice: choice[1])]
    front: list[tuple[float, float, tuple[int, ...]]] = []
    for choice in sorted(each for each in candidates if each[0] <= limit_bytes):
        if not front or choice[1] < front[-1][1]:
            front.append(choice)
    every = -(-len(front) // MOST_PARTIAL_CHOICES) or 1
    return front[::-1][::every][::-1]  # always keeps the fastest


def _state_bytes(work: Work) -> int:
    """The bytes of one token's state at one boundary."""
    return work.shape.hidden * work.activation_bytes
