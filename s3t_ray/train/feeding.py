"""From a stage's items to the micro-batches of one rank: order, packing, stored states.

In: items, their stored states if the recipe keeps them. Out: per optimizer step, its records and this rank's
micro-batches. Decisions are those of `batches.py`; here they only become tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from s3t_ray.config.schema import Config
from s3t_ray.train.base import Base
from s3t_ray.train.batches import epoch_order, pack, pad_groups, steps_in_epoch
from s3t_ray.train.engine import Batch
from s3t_ray.train.examples import Item
from s3t_ray.train.forward import pack_items, pad_items
from s3t_ray.train.hidden import SliceStates
from s3t_ray.train.ranks import Group
from s3t_ray.train.seeds import StagePlace


@dataclass(frozen=True)
class Step:
    """The records of one optimizer step, of all ranks."""

    items: tuple[Item, ...]

    @property
    def labelled(self) -> int:
        """Labelled tokens (classification: records): what the step's loss is the mean over."""
        return sum(item.labelled for item in self.items)

    @property
    def tokens(self) -> int:
        return sum(len(item.tokens) for item in self.items)


class Feeder:
    """Feeds one rank of one stage."""

    def __init__(self, config: Config, base: Base, states: Mapping[int, SliceStates] | None, group: Group) -> None:
        """`states`: stored states by slice, or None where the stage starts from the tokens."""
        self._config = config
        self._base = base
        self._states = states
        self._group = group

    def steps(self, items: Sequence[Item], place: StagePlace) -> Iterator[Step]:
        """All optimizer steps of a stage, epoch after epoch."""
        names = [item.id for item in items]
        size = self._config.optimizer.batch_records
        for epoch in range(self._config.optimizer.epochs):
            order = epoch_order(names, place, epoch)
            for step in range(steps_in_epoch(len(items), size)):
                yield Step(tuple(items[index] for index in order[step * size : (step + 1) * size]))

    def batches(self, step: Step) -> list[Batch]:
        """This rank's micro-batches of a step; as many as every other rank has."""
        lengths = [len(item.tokens) for item in step.items]
        limit = self._config.engine.micro_batch_tokens
        if self._base.family.task == "classification":
            groups = pad_groups(lengths, limit, self._group.world)[self._group.rank]
            return [self._padded([step.items[index] for index in group]) for group in groups]
        groups = pack(lengths, limit, self._group.world)[self._group.rank]
        return [self._packed([step.items[index] for index in group]) for group in groups]

    def _packed(self, items: Sequence[Item]) -> Batch:
        states: list[torch.Tensor] | None = None
        if self._states is not None:
            states = [self._states[item.slice].of(item.row) for item in items]
        return pack_items(items, states, self._group.device, self._base.model.config.hidden_size)

    def _padded(self, items: Sequence[Item]) -> Batch:
        return pad_items(items, self._base.model.config.pad_token_id or 0, self._group.device)
