"""Provides the states that enter a stage's lowest layer: reads stored ones, or computes them from a lower boundary.

In: the stored boundaries, a job, its slices. Out: `Entering`, which feeds the micro-batches. States that are not
stored are computed for each micro-batch, record by record, from the highest stored boundary below (or from the
tokens). The computation is the same one whose result would be stored, so the choice of boundaries never changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.train.engine import inference
from s3t_ray.train.examples import Item, SliceItems
from s3t_ray.train.forward import Forward, Packed, pack_items
from s3t_ray.train.grouped import GroupedModel
from s3t_ray.train.hidden_states.hidden import HiddenStore, SliceStates
from s3t_ray.train.job import StageJob, StageStopped
from s3t_ray.train.ranks import Group


@dataclass(frozen=True)
class Entering:
    """The source of the states that enter `layer`."""

    layer: int
    start: int  # the layer whose input states are stored; 0: none are stored, start from the tokens
    stored: Mapping[int, SliceStates]  # by slice; empty if start is 0
    forward: Forward
    device: torch.device

    def lifted(self, items: Sequence[Item], states_T_D: Tensor | None) -> Tensor | None:
        """The states [T x D] that enter `layer`, for these records one after another.

        `states_T_D`: their stored states at `start`; None: start from the tokens.
        """
        if self.start == self.layer or not items:
            return states_T_D
        lengths = [len(item.tokens) for item in items]
        below: Sequence[Tensor | None] = [None] * len(items) if states_T_D is None else states_T_D.split(lengths)
        with torch.no_grad():
            return torch.cat([self._one(item, own) for item, own in zip(items, below, strict=True)])

    def _one(self, item: Item, states: Tensor | None) -> Tensor:
        # Copy, so that the data has the usual alignment: kernels may round differently depending on alignment.
        alone = pack_items([item], None if states is None else states.clone(), self.device)
        return self.forward.states_entering((self.layer,), alone, self.start)[self.layer]

    def close(self) -> None:
        for states in self.stored.values():
            states.close()


class EnteringStates:
    """Creates and opens the input states for the stages of one worker group."""

    def __init__(
        self, config: Config, grouped: GroupedModel, forward: Forward, hidden: HiddenStore, group: Group
    ) -> None:
        self._config = config
        self._grouped = grouped
        self._forward = forward
        self._hidden = hidden
        self._group = group
        self._boundaries = stored_boundaries(config, grouped.lowest_layer)

    def of(
        self, job: StageJob, slices: Sequence[SliceItems], work: Path, should_stop: Callable[[], bool]
    ) -> Entering | None:
        """The source of the stage's input states; stores them first if the config says so. None: start from tokens.

        A boundary at layer 0 needs no states: its input is the embeddings. Raises StageStopped if a rank must stop
        while states are being stored, TrainError if stored states are damaged.
        """
        layer = self._grouped.lowest_layer(job.depth)
        if self._config.engine.hidden_states == "recompute" or layer == 0:
            return None
        below = [boundary for boundary in self._boundaries if boundary <= layer]
        start = max(below, default=0)
        opened: dict[int, SliceStates] = {}
        if start:
            for piece in slices:
                # Store the lower boundaries in the same pass: deeper stages that contain this slice need them.
                if not self._hidden.has(job, piece, start):
                    self._make(job, piece, below, work, should_stop)
        try:
            for piece in slices if start else ():
                opened[piece.input.slice] = self._hidden.open(job, piece, start, work / "cache")
        except TrainError:
            for states in opened.values():
                states.close()
            raise
        return Entering(layer, start, opened, self._forward, self._group.device)

    def _make(
        self,
        job: StageJob,
        piece: SliceItems,
        below: Sequence[int],
        work: Path,
        should_stop: Callable[[], bool],
    ) -> None:
        """Store the missing boundaries in one pass from the highest stored boundary below them."""
        missing = [boundary for boundary in below if not self._hidden.has(job, piece, boundary)]
        origin = max((boundary for boundary in below if boundary < missing[0]), default=0)
        states = self._hidden.open(job, piece, origin, work / "cache") if origin else None

        def entering(batch: Packed) -> list[Tensor]:
            caught = self._forward.states_entering(missing, batch, origin)
            return [caught[boundary] for boundary in missing]

        def states_of(item: Item) -> dict[int, Tensor]:
            own = None
            if states is not None:
                idle = item.row < 0  # a rank without a record still takes part in the collectives
                own = torch.zeros(1, self._grouped.hidden_size) if idle else states.of(item.row)
            return dict(zip(missing, compute(pack_items([item], own, self._group.device)), strict=True))

        try:
            with inference(self._grouped.base.model, entering, self._config) as compute:
                if not self._hidden.make(job, piece, missing, states_of, work, should_stop):
                    raise StageStopped(job.stage_id)
        finally:
            if states is not None:
                states.close()


def stored_boundaries(config: Config, lowest_layer: Callable[[int], int]) -> tuple[int, ...]:
    """The stored boundaries as layer indices, in ascending order. `lowest_layer`: depth -> a stage's lowest layer.

    Raises TrainError if `engine.stored_boundaries` is still `auto`.
    """
    wanted = config.engine.stored_boundaries
    if wanted == "auto":
        raise TrainError(
            "engine.stored_boundaries is auto and was not resolved",
            "pass a list of depths to the engine: `s3t plan` shows the automatic choice, `s3t train` applies it",
        )
    depths = range(1, config.slices + 1) if wanted == "all" else wanted
    return tuple(sorted({layer for layer in map(lowest_layer, depths) if layer > 0}))
