"""Computes each record's loss under several models of a run, token by token, for the membership audit.

In: the run's config, base and store, chains of stages, contents of records. Out: one RecordLoss per record, or None if
it has nothing to predict. One forward pass per record and 16 models: layers without adapters run once.
Loads its own models and keeps none; never writes.

Shapes: T predictions (labelled tokens, or the record), V outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from s3t_ray.audit.attack_scores import RecordLoss, min_k
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.inputs import Example, TeachesNothing, encode
from s3t_ray.ensemble.answers import Chain
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import LoadedStage, load_stage
from s3t_ray.ensemble.row_lora import Layout, applied, install_hooks, plan_rows
from s3t_ray.store.store import Store
from s3t_ray.train.loading.base_reader import base_reader

_ROWS = 16  # models per forward pass
_CHUNK_LOGITS = 1 << 24  # of one [positions x V] block: 64 MiB in float32


class Judge:
    """The models of `chains` (the empty chain: the base model), loaded once.

    StoreError or TrainError: a stage is missing, damaged or does not fit.
    """

    def __init__(self, config: Config, base: Path, store: Store, chains: Sequence[Chain]) -> None:
        self._task = config.task
        self._tokenizer = base_reader(base, config.task)
        self._base = FrozenBase(config, base)
        install_hooks(self._base)
        self._chains = tuple(chains)
        self._stages: dict[str, LoadedStage] = {}
        for chain in self._chains:
            for depth, name in enumerate(chain, start=1):
                if name not in self._stages:
                    self._stages[name] = load_stage(store, chain[:depth], self._base)
        parts = (self._chains[start : start + _ROWS] for start in range(0, len(self._chains), _ROWS))
        self._layouts = tuple((part, plan_rows(self._base, self._stages, part)) for part in parts)

    def losses(self, contents: Sequence[str]) -> Iterator[RecordLoss | None]:
        """The losses of each record, in order; None: it has nothing to learn."""
        for content in contents:
            try:
                example = encode(content, self._tokenizer, self._task)
            except TeachesNothing:
                yield None
            else:
                yield self.loss(example)

    @torch.inference_mode()
    def loss(self, example: Example) -> RecordLoss:
        """The losses of one record that has something to predict."""
        judged: dict[Chain, tuple[float, ...]] = {}
        for part, layout in self._layouts:
            judged |= self._losses(example, part, layout)
        ordered = [judged[chain] for chain in self._chains]
        nll = tuple(sum(values) / len(values) for values in ordered)
        by_token = self._base.task.generates
        return RecordLoss(nll, tuple(min_k([-value for value in own]) for own in ordered) if by_token else None)

    def _losses(self, example: Example, part: Sequence[Chain], layout: Layout) -> Mapping[Chain, tuple[float, ...]]:
        """Loss of every prediction under each model."""
        positions, wanted = self._base.task.asked(example)
        targets_T = torch.tensor(wanted, device=self._base.device)
        with applied(layout):
            hidden = self._base.hidden_of([example])[:, 0, positions]
        return {chain: self._one(chain, hidden[layout.row(chain)].unsqueeze(0), targets_T) for chain in part}

    def _one(self, chain: Chain, hidden: Tensor, targets_T: Tensor) -> tuple[float, ...]:
        head = self._stages[chain[-1]].head if chain else {}
        rows = max(1, _CHUNK_LOGITS // self._base.output_rows)
        found: list[float] = []
        for start in range(0, len(targets_T), rows):
            outputs_TV = self._base.outputs(hidden[:, start : start + rows], [head])
            found += self._base.task.losses(outputs_TV, targets_T[start : start + rows]).tolist()
        return tuple(found)
