"""Turns a stage's items into the micro-batches of one rank: order, packing, stored states.

In: items, and the source of the stage's input states. Out: for each optimizer step, its records and this rank's
micro-batches, one at a time. `batches.py` makes the decisions; this module only builds the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from s3t_ray.config.schema import Config
from s3t_ray.train.batches import epoch_order, pack, pad_groups, steps_in_epoch
from s3t_ray.train.engine import Batch
from s3t_ray.train.examples import Item
from s3t_ray.train.forward import pack_items, pad_items
from s3t_ray.train.hidden_states.incoming_states import Entering
from s3t_ray.train.hidden_states.readahead import ReadAhead
from s3t_ray.train.loading.base import Base, precision_dtype
from s3t_ray.train.ranks import Group
from s3t_ray.train.seeds import StagePlace


@dataclass(frozen=True)
class Step:
    """The records of one optimizer step, over all ranks."""

    items: tuple[Item, ...]

    @property
    def labelled(self) -> int:
        """The number of predictions (tokens or records) that the step's mean loss averages."""
        return sum(item.labelled for item in self.items)

    @property
    def tokens(self) -> int:
        return sum(len(item.tokens) for item in self.items)


class Feeder:
    """Provides the steps and micro-batches of one rank of one stage."""

    def __init__(self, config: Config, base: Base, entering: Entering | None, group: Group) -> None:
        """`entering`: the source of the stage's input states; None if the stage starts from the tokens."""
        self._config = config
        self._base = base
        self._entering = entering
        self._group = group
        self._ahead: ReadAhead | None = None

    def steps(self, items: Sequence[Item], place: StagePlace) -> Iterator[Step]:
        """All optimizer steps of a stage, epoch after epoch."""
        names = [item.id for item in items]
        size = self._config.optimizer.batch_records
        for epoch in range(self._config.optimizer.epochs):
            order = epoch_order(names, place, epoch)
            for step in range(steps_in_epoch(len(items), size)):
                yield Step(tuple(items[index] for index in order[step * size : (step + 1) * size]))

    @contextmanager
    def reading(self, steps: Sequence[Step]) -> Iterator[None]:
        """Read stored states ahead. In this context, call `batches` for exactly these steps, in this order."""
        if self._entering is None or not self._entering.start:
            yield
            return
        packs = (items for step in steps for items in self._groups(step))
        self._ahead = ReadAhead(
            packs,
            self._entering.stored,
            self._base.model.config.hidden_size,
            precision_dtype(self._config),
            self._group.device.type == "cuda",
        )
        try:
            yield
        finally:
            self._ahead.close()
            self._ahead = None

    def batches(self, step: Step) -> Iterator[Batch]:
        """This rank's micro-batches of a step. Every rank has the same number."""
        for items in self._groups(step):
            yield self._padded(items) if self._base.padded else self._packed(items)

    def _groups(self, step: Step) -> list[list[Item]]:
        """The records in each of this rank's micro-batches."""
        lengths = [len(item.tokens) for item in step.items]
        divide = pad_groups if self._base.padded else pack
        groups = divide(lengths, self._config.engine.micro_batch_tokens, self._group.world)[self._group.rank]
        return [[step.items[index] for index in group] for group in groups]

    def _packed(self, items: Sequence[Item]) -> Batch:
        if self._entering is None:
            return pack_items(items, None, self._group.device)
        states = self._ahead.take(items) if self._ahead is not None else None
        if not items:  # an empty micro-batch must start at the same layer as on the other ranks
            states = torch.empty(0, self._base.model.config.hidden_size)
        return pack_items(items, self._entering.lifted(items, states), self._group.device)

    def _padded(self, items: Sequence[Item]) -> Batch:
        return pad_items(items, self._base.model.config.pad_token_id or 0, self._group.device)
