"""The task `regression`: an encoder whose head outputs one number. Legend as in `task_model.py`."""

from __future__ import annotations

from torch import Tensor, nn

from s3t_ray.train.task_models.task_model import JudgingModel


class ValueModel(JudgingModel):
    """A record has a value; the loss is the squared error."""

    def losses(self, outputs_S_V: Tensor, targets_S: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs_S_V[:, 0], targets_S.float(), reduction="none")

    def predicted(self, scores_C: Tensor) -> float:
        return float(scores_C[0])

    def scores(self, scores_C: Tensor) -> tuple[float, ...]:
        return (float(scores_C[0]),)

    def answer(self, scores_C: Tensor) -> str:
        return f"{float(scores_C[0]):.4f}"
