"""Row-wise LoRA: one forward pass of the base model in which every row has its own adapters.

In: loaded stages and the chains of the ensemble. Out: a `Layout`, and hooks on the base that apply the active
layout. A text enters as one row. Below the lowest layer that a chain changes, its hidden states are those of
the base model, so its row branches off there: layers without adapters run once, whatever the number of
chains. In a linear module, one batched product applies the adapters of all rows that have one.

The hooks hold no weights and do nothing outside `applied`. The active layout is local to the calling thread.
Never changes a weight of the base.

Shapes: R rows at a layer, n of them with an adapter in a module, k distinct stages, T tokens, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from s3t_ray.ensemble.answers import Chain
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import LoadedStage
from s3t_ray.errors import StoreError

BASE: Chain = ()
"""The chain without stages: the base model."""


@dataclass(frozen=True)
class Stack:
    """The adapters of one linear module, one per distinct stage, and their assignment to rows."""

    down: Tensor  # [k, in, r], one per distinct stage
    up: Tensor  # [k, r, out]
    pick: Tensor | None  # [n]: index in 0..k-1 for each row that has an adapter; None: row i uses i
    rows: Tensor | None  # [n]: the rows that have an adapter; None: all


@dataclass(frozen=True)
class Layout:
    """The rows at each layer, and their adapters."""

    chains: tuple[Chain, ...]
    """The rows at the top layer, in order."""
    forks: Mapping[int, Tensor]
    """Layer -> for each row from this layer on, the row below that it continues."""
    stacks: Mapping[str, Stack]
    """By name of the linear module."""

    def row(self, chain: Chain) -> int:
        """The row of `chain` in the hidden states of the top layer."""
        return self.chains.index(chain)


_in_force: ContextVar[Layout | None] = ContextVar("s3t_ray_layout", default=None)
_texts: ContextVar[int] = ContextVar("s3t_ray_texts", default=1)
"""The number of texts per row: row r of text n is at index r x texts + n."""


@contextmanager
def applied(layout: Layout, texts: int = 1) -> Iterator[None]:
    """Run this thread's forward passes in this context with `layout`, on `texts` texts of equal length."""
    token, count = _in_force.set(layout), _texts.set(texts)
    try:
        yield
    finally:
        _texts.reset(count)
        _in_force.reset(token)


def install_hooks(base: FrozenBase) -> None:
    """Install the hooks that `applied` needs. Call it once per base."""
    for index, layer in enumerate(base.layers):
        layer.register_forward_pre_hook(partial(_fork, index))
    for name, module in base.linears.items():
        module.register_forward_hook(partial(_add, name))


def plan_rows(base: FrozenBase, stages: Mapping[str, LoadedStage], chains: Sequence[Chain]) -> Layout:
    """The layout in which each of `chains` has its own row. Duplicate chains share a row.

    Raises StoreError if two stages of a chain change the same module, because then they do not form a chain.
    """
    wanted = tuple(dict.fromkeys(chains))
    lowest = {
        chain: min((stages[name].lowest for name in _acting(base, chain)), default=len(base.layers)) for chain in wanted
    }
    rows: tuple[Chain, ...] = (BASE,)
    rows_at: list[tuple[Chain, ...]] = []
    forks: dict[int, Tensor] = {}
    stacks: dict[str, Stack] = {}
    for layer in range(len(base.layers)):
        joining = tuple(chain for chain in wanted if lowest[chain] == layer)
        if joining:
            base_goes_on = any(low > layer for low in lowest.values())
            kept = [row for row, chain in enumerate(rows) if chain != BASE or base_goes_on]
            forks[layer] = torch.tensor([*kept, *(0 for _ in joining)], device=base.device)
            rows = (*(rows[row] for row in kept), *joining)
        rows_at.append(rows)
    for name, layer in base.layer_of.items():
        stack = _stack(base, name, rows_at[layer], stages)
        if stack is not None:
            stacks[name] = stack
    return Layout(rows, forks, stacks)


def _acting(base: FrozenBase, chain: Chain) -> Chain:
    """The stages of a chain whose adapters are active. Without isolation, that is only the last stage."""
    return chain if base.isolation == "layers" else chain[-1:]


def changing_stage(base: FrozenBase, name: str, chain: Chain, stages: Mapping[str, LoadedStage]) -> str | None:
    """The stage of a chain whose adapter for the module `name` is active; None if there is none.

    Raises StoreError if two stages change the module, because then they do not form a chain.
    """
    having = [stage for stage in _acting(base, chain) if name in stages[stage].deltas]
    if len(having) > 1:
        raise StoreError(
            f"stages {having} both change {name}, so they cannot be combined",
            "train the run again, because its layer groups overlap",
        )
    return having[0] if having else None


def _stack(base: FrozenBase, name: str, rows: Sequence[Chain], stages: Mapping[str, LoadedStage]) -> Stack | None:
    changing = ((row, changing_stage(base, name, chain, stages)) for row, chain in enumerate(rows))
    owners = [(row, stage) for row, stage in changing if stage is not None]
    if not owners:
        return None
    distinct = list(dict.fromkeys(stage for _, stage in owners))
    deltas = [stages[stage].deltas[name] for stage in distinct]
    if len({delta.down.shape for delta in deltas}) > 1:
        raise StoreError(f"stages {distinct} have adapters of different ranks in {name}", "train the run again")
    pick = [distinct.index(stage) for _, stage in owners]
    having_rows = [row for row, _ in owners]
    return Stack(
        torch.stack([delta.down for delta in deltas]),
        torch.stack([delta.up for delta in deltas]),
        None if pick == list(range(len(distinct))) else torch.tensor(pick, device=base.device),
        None if having_rows == list(range(len(rows))) else torch.tensor(having_rows, device=base.device),
    )


def _fork(layer: int, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Pre-hook of a layer: branch off the rows that start here."""
    layout = _in_force.get()
    if layout is None or layer not in layout.forks:
        return None
    hidden, *rest = args
    texts = _texts.get()
    if texts == 1:
        return (hidden.index_select(0, layout.forks[layer]), *rest)
    return (hidden.unflatten(0, (-1, texts)).index_select(0, layout.forks[layer]).flatten(0, 1), *rest)


def _add(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """Hook of a linear module: add each row's adapter output, computed in the adapter's precision."""
    layout = _in_force.get()
    stack = None if layout is None else layout.stacks.get(name)
    if stack is None:
        return None
    texts = _texts.get()
    if texts > 1:  # treat the texts of a row as one long text
        whole = output.shape
        rows = (whole[0] // texts, -1, args[0].shape[-1])
        output = _added(stack, args[0].reshape(rows), output.reshape(*rows[:2], whole[-1]))
        return output.reshape(whole)
    return _added(stack, args[0], output)


def _added(stack: Stack, inputs: Tensor, output: Tensor) -> Tensor:
    """`output` [R x T x out] plus the adapters' output for `inputs` [R x T x in]."""
    x = inputs if stack.rows is None else inputs.index_select(0, stack.rows)
    down = stack.down if stack.pick is None else stack.down.index_select(0, stack.pick)
    up = stack.up if stack.pick is None else stack.up.index_select(0, stack.pick)
    inner = torch.bmm(x.to(down.dtype), down)
    if stack.rows is None and output.dtype == up.dtype:
        return output.baddbmm_(inner, up)  # in place, since a long prompt's output is large and nothing else uses it
    part = torch.bmm(inner, up)
    if stack.rows is None:
        return (output + part).to(output.dtype)
    return output.index_add(0, stack.rows, part.to(output.dtype))
