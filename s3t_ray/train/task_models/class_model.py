"""The task `classification`: an encoder whose head scores each class. Legend as in `task_model.py`; C is classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3t_ray.train.task_models.task_model import JudgingModel


class ClassModel(JudgingModel):
    """A record belongs to one of `task.labels`."""

    def losses(self, outputs_S_V: Tensor, targets_S: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs_S_V, targets_S, reduction="none")

    def predicted(self, scores_C: Tensor) -> float:
        return int(scores_C.argmax())

    def scores(self, scores_C: Tensor) -> tuple[float, ...]:
        return tuple(torch.softmax(scores_C, dim=-1).tolist())

    def answer(self, scores_C: Tensor) -> str:
        return self.task.labels[int(scores_C.argmax())]
