"""Which boundaries' hidden states to store: what each costs and saves over a first training.

In: `Work`, the orders, the rates of a rank, a limit on bytes. Out: the depths whose entering states are stored, and a
line on each boundary. Pure. A stage whose boundary is not stored computes its states anew at every visit of a record
from the nearest stored boundary below (from the tokens where there is none), so what is stored never decides weights.

A boundary costs its bytes (written once, read at each visit) and saves the layers below it at each visit, of its own
stage and of those that are lifted from it. Reading is counted in full, although it goes on while a step computes: a
choice that pays by this count pays all the more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from s3t_ray.config.checks import is_remote
from s3t_ray.config.schema import Config
from s3t_ray.plan.work import Orders, Work, count_stages, forward_flops_per_token

GIB = 2**30
ASSUMED_CPU_FLOPS = 50e9
"""Of one thread in float32: about half of what a server's core reaches."""
ASSUMED_GPU_FLOPS = {"bfloat16": 300e12, "float32": 30e12}
ASSUMED_LOCAL_BYTES = 1e9
"""A second, from an NVMe disk."""
ASSUMED_REMOTE_BYTES = 2e8
MOST_PARTIAL_CHOICES = 400
"""Kept apart at a boundary when bytes are limited: above it, the choice may miss the best by a little."""


@dataclass(frozen=True)
class Rates:
    """Of one rank."""

    flops_per_second: float
    bytes_per_second: float  # reading or writing hidden states


@dataclass(frozen=True)
class Boundary:
    """One boundary as the plan decides it."""

    depth: int  # of the stages that it enters
    layer: int
    stored: bool
    start_layer: int  # the layer that its states are read at or lifted from; 0: from the tokens
    bytes: int  # of its states, stored or not
    saved_seconds: float  # of rank time, by storing it rather than not, the others as they are; negative: lost


@dataclass(frozen=True)
class _Use:
    """What the stages of one depth do with the states that enter them."""

    depth: int
    layer: int
    visits: float  # tokens x epochs, over all stages of the depth
    tokens: float  # whose states some stage needs


def rates(config: Config) -> Rates:
    """What the config says of a rank, or assumptions."""
    on_gpu, workers = config.workers.gpus_per_rank > 0, config.workers
    assumed = ASSUMED_GPU_FLOPS[config.engine.precision] if on_gpu else ASSUMED_CPU_FLOPS * config.engine.threads
    given = config.storage.megabytes_per_second
    stored = ASSUMED_REMOTE_BYTES if is_remote(config.storage.uri) else ASSUMED_LOCAL_BYTES
    return Rates(
        flops_per_second=1e9 * workers.gigaflops_per_rank if workers.gigaflops_per_rank else assumed,
        bytes_per_second=1e6 * given if given else stored,
    )


def choose_depths(config: Config, work: Work, orders_by_shard: Sequence[Orders]) -> tuple[int, ...]:
    """The depths whose entering states are stored: as the config says, or with `auto` those that pay."""
    if config.engine.stored_boundaries != "auto" or config.engine.hidden_states == "recompute":
        return work.stored_depths
    limit = config.storage.hidden_states_gib
    return best_depths(work, orders_by_shard, rates(config), None if limit is None else limit * GIB)


def best_depths(
    work: Work, orders_by_shard: Sequence[Orders], speed: Rates, limit_bytes: float | None
) -> tuple[int, ...]:
    """The set of depths with the least time whose states fit in the limit.

    From the lowest boundary up, for each that may be the last one stored, the choices so far that no other beats in
    both bytes and seconds.
    """
    uses = _uses(work, orders_by_shard)
    # The last stored boundary (-1: none) -> (bytes, seconds, indices of the stored).
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
    """A line on each boundary above layer 0, the highest first, for the stored depths of `work`."""
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
    """Rank time that a first training spends on the states that enter its stages, with these stored."""
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
    """Tokens x layers that are run to fill the store: each record up to the highest boundary that some stage needs.

    The boundaries below are on the way.
    """
    below, layers = 0, 0.0
    for use in _uses(work, orders_by_shard):
        if use.depth in work.stored_depths:
            layers += use.tokens * (use.layer - below)
            below = use.layer
    return layers


def stored_state_tokens(work: Work, orders_by_shard: Sequence[Orders]) -> float:
    """Hidden states that are stored, each of one token at one boundary."""
    return sum(use.tokens for use in _uses(work, orders_by_shard) if use.depth in work.stored_depths)


def _uses(work: Work, orders_by_shard: Sequence[Orders]) -> list[_Use]:
    """Of each boundary above layer 0, the lowest first."""
    stages = count_stages(orders_by_shard)
    slices: dict[int, int] = dict.fromkeys(range(1, work.slices + 1), 0)
    known: dict[int, list[int]] = {}  # shards mostly have the very same orders
    for orders in orders_by_shard:
        if id(orders) not in known:
            known[id(orders)] = [len({s for order in orders for s in order[:depth]}) for depth in slices]
        for depth, number in zip(slices, known[id(orders)], strict=True):
            slices[depth] += number
    visits = {depth: stages[depth] * depth * work.slice_tokens * work.epochs for depth in slices}
    if not work.isolated:  # all stages enter at the boundary of the deepest
        visits = {work.slices: sum(visits.values())}
    return [
        _Use(depth, work.boundary(depth), visits[depth], slices[depth] * work.slice_tokens)
        for depth in sorted(visits, reverse=True)
        if work.boundary(depth) > 0
    ]


def _stored_seconds(work: Work, uses: Sequence[_Use], speed: Rates, last: int, index: int) -> float:
    """To fill the boundary `index` from the one stored before it, write it, and read it at each visit."""
    use, below = uses[index], uses[last].layer if last >= 0 else 0
    layer_seconds = forward_flops_per_token(work) / speed.flops_per_second
    transfer_seconds = _state_bytes(work) / speed.bytes_per_second
    return use.tokens * ((use.layer - below) * layer_seconds + transfer_seconds) + use.visits * transfer_seconds


def _gap_seconds(work: Work, uses: Sequence[_Use], speed: Rates, last: int, index: int) -> float:
    """To lift the states of the boundaries between `last` and `index`, none of them stored, at each visit."""
    below = uses[last].layer if last >= 0 else 0
    layer_seconds = forward_flops_per_token(work) / speed.flops_per_second
    read_seconds = _state_bytes(work) / speed.bytes_per_second if last >= 0 else 0.0
    return sum(use.visits * ((use.layer - below) * layer_seconds + read_seconds) for use in uses[last + 1 : index])


def _best(
    candidates: list[tuple[float, float, tuple[int, ...]]], limit_bytes: float | None
) -> list[tuple[float, float, tuple[int, ...]]]:
    """Those within the limit that no other beats in both bytes and seconds; without a limit, the fastest."""
    if limit_bytes is None:
        return [min(candidates, key=lambda choice: choice[1])]
    front: list[tuple[float, float, tuple[int, ...]]] = []
    for choice in sorted(each for each in candidates if each[0] <= limit_bytes):
        if not front or choice[1] < front[-1][1]:
            front.append(choice)
    every = -(-len(front) // MOST_PARTIAL_CHOICES) or 1
    return front[::-1][::every][::-1]  # the fastest stays


def _state_bytes(work: Work) -> int:
    """Of one token at one boundary."""
    return work.shape.hidden * work.activation_bytes
