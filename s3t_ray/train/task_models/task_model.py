"""The part of a task that needs torch: its predictions, its loss, and how the shards' outputs are combined.

In: the `task` section. Out: its TaskModel, one class per task, found through `config.tasks`. Training and serving use
the same class, so evaluation uses the loss that was trained.
Legend: R models in the ensemble (or records of a micro-batch), T tokens, S positions with a prediction, D hidden size,
V outputs (vocabulary or head rows), C head rows (classes, or 1 for a value).
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
"""The weights of one stage's task head by parameter name; empty: the model has no task head."""


class TaskModel(ABC):
    """Defines how a loaded model is used for one task. Holds no weights."""

    peft_task: ClassVar[str | None]
    """PEFT's task type for adapter_config.json; None: PEFT has none for this task."""
    generates: ClassVar[bool]
    """Whether the model generates text token by token. Otherwise one forward pass scores the record."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def model_class(self) -> Any:
        """transformers' Auto class for a base with this task's head."""

    @abstractmethod
    def targets(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        """The input tokens for training, and the targets of the first len(targets) positions (-100: no target)."""

    @abstractmethod
    def loss(
        self, model: nn.Module, head_parts: Sequence[str], states_T_D: Tensor, labelled_S: Tensor, targets_S: Tensor
    ) -> Tensor:
        """The summed loss of a packed row, from its last hidden states. S may be 0; the graph is still complete."""

    @abstractmethod
    def asked(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        """The positions of the record with a prediction, and their targets. Empty: there is nothing to evaluate."""

    @abstractmethod
    def outputs(
        self, model: nn.Module, head_parts: Sequence[str], states_R_S_D: Tensor, heads: Sequence[Head]
    ) -> Tensor:
        """The combined prediction of the R models, float32 [S x V]: the mean of their outputs."""

    @abstractmethod
    def losses(self, outputs_S_V: Tensor, targets_S: Tensor) -> Tensor:
        """The loss of each prediction, float32 [S]: the negative log-likelihood in nats, if there is a likelihood."""


class JudgingModel(TaskModel):
    """A task whose head scores a record from the state of its first token."""

    peft_task: ClassVar[str | None] = "SEQ_CLS"
    generates = False

    def model_class(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    @abstractmethod
    def predicted(self, scores_C: Tensor) -> float:
        """The prediction in the form of a record's label: a class index, or a value."""

    @abstractmethod
    def scores(self, scores_C: Tensor) -> tuple[float, ...]:
        """The full prediction: the probability of each class, or the value."""

    @abstractmethod
    def answer(self, scores_C: Tensor) -> str:
        """The prediction as text: the class label, or the formatted value."""

    def targets(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        assert example.label is not None
        return example.input_ids, (example.label,)

    def loss(
        self, model: nn.Module, head_parts: Sequence[str], states_T_D: Tensor, labelled_S: Tensor, targets_S: Tensor
    ) -> Tensor:
        # An empty micro-batch scores its placeholder token, so that the head runs on every rank.
        first_R_D = states_T_D[labelled_S] if len(targets_S) else states_T_D[:1]
        return self.summed(run_head(model, head_parts, first_R_D, {}), targets_S)

    def summed(self, scores_R_C: Tensor, targets_R: Tensor) -> Tensor:
        """The summed loss of these records; zero if there are none."""
        if not len(targets_R):
            return scores_R_C.float().sum() * 0.0
        return self.losses(scores_R_C.float(), targets_R).sum()

    def asked(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        return ((), ()) if example.label is None else ((0,), (example.label,))

    def outputs(
        self, model: nn.Module, head_parts: Sequence[str], states_R_S_D: Tensor, heads: Sequence[Head]
    ) -> Tensor:
        """The mean of the models' scores. A model without a head (the base) scores 0 for every class."""
        rows = [
            run_head(model, head_parts, row_S_D, head) if head else row_S_D.new_zeros(len(row_S_D), self.task.head_rows)
            for row_S_D, head in zip(states_R_S_D, heads, strict=True)
        ]
        return torch.stack(rows).float().mean(dim=0)


def run_head(model: nn.Module, head_parts: Sequence[str], first_R_D: Tensor, head: Head) -> Tensor:
    """The scores [R x C] of records, from the last hidden states of their first tokens.

    Uses the weights in `head`, or the model's own where `head` has none.
    """
    hidden = first_R_D.unsqueeze(1)  # the parts select the first token themselves
    for part in head_parts:
        own = {name.removeprefix(f"{part}."): w for name, w in head.items() if name.startswith(f"{part}.")}
        module = model.get_submodule(part)
        hidden = functional_call(module, own, (hidden,)) if own else module(hidden)
    return hidden[:, 0] if hidden.dim() == 3 else hidden  # a single linear layer keeps the token dimension


def task_model(task: Task) -> TaskModel:
    """The TaskModel of `task.kind`."""
    model: TaskModel = load_half(TASKS[task.kind].model)(task)
    return model
