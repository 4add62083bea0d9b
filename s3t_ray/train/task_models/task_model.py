"""The half of a task that needs torch: what is predicted, the loss, and what the shards' outputs make together.

In: the `task` section. Out: its TaskModel, one object per task, found through `config.tasks`. Training and serving use
the same object, so a prediction is judged by the very loss that was trained. Legend: R models that answer together (or
records of a micro-batch), T tokens, S positions with a prediction, D hidden size, V outputs (vocabulary or head rows).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS, load_half
from s3t_ray.data.readers.inputs import Example

Head = Mapping[str, Tensor]
"""Weights of one stage's task head by parameter name; empty: the model has none of its own."""


class TaskModel(ABC):
    """What a loaded model is for. Holds no weight."""

    peft_task: ClassVar[str]
    """PEFT's name of the task, in adapter_config.json."""
    generates: ClassVar[bool]
    """Whether an answer is written token by token; else one forward pass judges the whole record."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def model_class(self) -> Any:
        """transformers' Auto class of a base with this task's head."""

    @abstractmethod
    def targets(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        """The tokens that training feeds, and what each of the first of them must predict (-100: nothing)."""

    @abstractmethod
    def loss(
        self, model: nn.Module, head_parts: Sequence[str], states_T_D: Tensor, labelled_S: Tensor, targets_S: Tensor
    ) -> Tensor:
        """Summed loss of a packed row, from its last hidden states. S may be 0: every parameter still takes part."""

    @abstractmethod
    def asked(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        """The positions of the record at which something is predicted, and what; empty: there is nothing to judge."""

    @abstractmethod
    def outputs(
        self, model: nn.Module, head_parts: Sequence[str], states_R_S_D: Tensor, heads: Sequence[Head]
    ) -> Tensor:
        """What the R models predict together, float32 [S x V]: the mean of their outputs."""

    @abstractmethod
    def losses(self, outputs_S_V: Tensor, targets_S: Tensor) -> Tensor:
        """Loss of each prediction, float32 [S]; negative log-likelihoods in nats where there is a likelihood."""


class JudgingModel(TaskModel):
    """A task whose head judges a whole record from the state of its first token."""

    peft_task = "SEQ_CLS"
    generates = False

    def model_class(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    @abstractmethod
    def predicted(self, scores_C: Tensor) -> float:
        """What the model says, in the terms of a record's label: a class by its number."""

    @abstractmethod
    def scores(self, scores_C: Tensor) -> tuple[float, ...]:
        """What the model says, in full: how likely each class is, or the value alone."""

    @abstractmethod
    def answer(self, scores_C: Tensor) -> str:
        """What the model says, in words."""

    def targets(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        assert example.label is not None
        return example.input_ids, (example.label,)

    def loss(
        self, model: nn.Module, head_parts: Sequence[str], states_T_D: Tensor, labelled_S: Tensor, targets_S: Tensor
    ) -> Tensor:
        # A micro-batch without records scores its stand-in, so that the head takes part on every rank.
        first_R_D = states_T_D[labelled_S] if len(targets_S) else states_T_D[:1]
        return self.summed(run_head(model, head_parts, first_R_D, {}), targets_S)

    def summed(self, scores_R_C: Tensor, targets_R: Tensor) -> Tensor:
        """Summed loss of these records; without a record, zero."""
        if not len(targets_R):
            return scores_R_C.float().sum() * 0.0
        return self.losses(scores_R_C.float(), targets_R).sum()

    def asked(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        return ((), ()) if example.label is None else ((0,), (example.label,))

    def outputs(
        self, model: nn.Module, head_parts: Sequence[str], states_R_S_D: Tensor, heads: Sequence[Head]
    ) -> Tensor:
        """A model without a head (the base) knows nothing of the labels: each of its scores is 0."""
        rows = [
            run_head(model, head_parts, row_S_D, head) if head else row_S_D.new_zeros(len(row_S_D), self.task.head_rows)
            for row_S_D, head in zip(states_R_S_D, heads, strict=True)
        ]
        return torch.stack(rows).float().mean(dim=0)


def run_head(model: nn.Module, head_parts: Sequence[str], first_R_D: Tensor, head: Head) -> Tensor:
    """Scores [R x C] of records, from the last hidden states of their first tokens; `head`'s weights where given."""
    hidden = first_R_D.unsqueeze(1)  # the parts look for the first token themselves
    for part in head_parts:
        own = {name.removeprefix(f"{part}."): w for name, w in head.items() if name.startswith(f"{part}.")}
        module = model.get_submodule(part)
        hidden = functional_call(module, own, (hidden,)) if own else module(hidden)
    return hidden


def task_model(task: Task) -> TaskModel:
    """The TaskModel of `task.kind`."""
    model: TaskModel = load_half(TASKS[task.kind].model)(task)
    return model
