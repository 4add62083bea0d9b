"""Each record's loss under each of several models of a run, token by token: what an audit judges by.

In: the run's config, base and store, chains of stages, contents of records. Out: a RecordLoss a record, or None
where it has nothing to predict. One forward pass a record and 16 models: layers without adapters run once.
Loads its own models and keeps none; never writes.

Shapes: T labelled tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from s3t_ray.audit.attack_scores import RecordLoss, min_k
from s3t_ray.config.schema import Config
from s3t_ray.data.inputs import NO_LOSS, Example, TeachesNothing, encode
from s3t_ray.ensemble.answers import Chain
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import LoadedStage, load_stage
from s3t_ray.ensemble.row_lora import Layout, applied, install_hooks, plan_rows
from s3t_ray.store.store import Store

_ROWS = 16  # models of one forward pass
_CHUNK_LOGITS = 1 << 24  # of one [positions x V] block: 64 MiB in float32


class Judge:
    """The models of `chains` (the empty chain: the base model), loaded once.

    Raises StoreError (or TrainError) for a stage that is missing, damaged or does not fit.
    """

    def __init__(self, config: Config, base: Path, store: Store, chains: Sequence[Chain]) -> None:
        self._task = config.task
        self._tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
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
        """The losses of each record, in order; None: nothing of it would be learned."""
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
            judged |= self._labels(example, part, layout) if self._base.classes else self._tokens(example, part, layout)
        ordered = [judged[chain] for chain in self._chains]
        nll = tuple(-sum(values) / len(values) for values in ordered)
        return RecordLoss(nll, None if self._base.classes else tuple(min_k(values) for values in ordered))

    def _tokens(self, example: Example, part: Sequence[Chain], layout: Layout) -> Mapping[Chain, tuple[float, ...]]:
        """Log-likelihood of every labelled token under each model."""
        labelled = [position for position, label in enumerate(example.labels[1:]) if label != NO_LOSS]
        targets_T = torch.tensor([example.labels[position + 1] for position in labelled], device=self._base.device)
        with applied(layout):
            hidden = self._base.hidden(example.input_ids)[:, labelled]
        return {chain: self._likelihoods(hidden[layout.row(chain)].unsqueeze(0), targets_T) for chain in part}

    def _likelihoods(self, hidden: Tensor, targets_T: Tensor) -> tuple[float, ...]:
        rows = max(1, _CHUNK_LOGITS // self._base.model.config.vocab_size)
        found: list[float] = []
        for start in range(0, len(targets_T), rows):
            logits_TV = self._base.text_logits(hidden[:, start : start + rows])
            loss_T = torch.nn.functional.cross_entropy(logits_TV, targets_T[start : start + rows], reduction="none")
            found += (-loss_T).tolist()
        return tuple(found)

    def _labels(self, example: Example, part: Sequence[Chain], layout: Layout) -> Mapping[Chain, tuple[float, ...]]:
        """Log-likelihood of the label under each model."""
        assert example.label is not None
        with applied(layout):
            hidden = self._base.hidden(example.input_ids)
        judged = {}
        for chain in part:
            head = self._stages[chain[-1]].head if chain else {}
            scores = self._base.class_logits(hidden[layout.row(chain)].unsqueeze(0), [head])
            judged[chain] = (float(torch.log_softmax(scores, dim=-1)[example.label]),)
        return judged
