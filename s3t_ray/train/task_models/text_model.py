"""The task `causal_lm`: a decoder that predicts the next token with the base's vocabulary head.

Legend as in `task_model.py`; V is the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from s3t_ray.config.families import FAMILIES
from s3t_ray.data.readers.inputs import NO_LOSS, Example
from s3t_ray.train.loss import summed_cross_entropy
from s3t_ray.train.task_models.task_model import Head, TaskModel
from s3t_ray.train.zero3_gather import whole


class TextModel(TaskModel):
    """The model generates text token by token."""

    peft_task = "CAUSAL_LM"
    generates = True

    def model_class(self) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def targets(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        """Position t predicts the label at t+1. Tokens after the last label are left out."""
        targets = example.labels[1:]
        fed = max((index + 1 for index, target in enumerate(targets) if target != NO_LOSS), default=0)
        return example.input_ids[:fed], targets[:fed]

    def loss(
        self, model: nn.Module, head_parts: Sequence[str], states_T_D: Tensor, labelled_S: Tensor, targets_S: Tensor
    ) -> Tensor:
        head: Any = model.lm_head
        with whole(list(head.parameters())):  # even for an empty micro-batch, because the other ranks gather too
            if not len(targets_S):
                return states_T_D.float().sum() * 0.0
            divisor = _logits_divisor(model)
            labelled_S_D = states_T_D[labelled_S]
            # The head is linear, so dividing its input divides the logits.
            return summed_cross_entropy(labelled_S_D if divisor is None else labelled_S_D / divisor, head, targets_S)

    def asked(self, example: Example) -> tuple[Sequence[int], Sequence[float]]:
        following = example.labels[1:]
        positions = [position for position, label in enumerate(following) if label != NO_LOSS]
        return positions, [following[position] for position in positions]

    def outputs(
        self, model: nn.Module, head_parts: Sequence[str], states_R_S_D: Tensor, heads: Sequence[Head]
    ) -> Tensor:
        """The head is linear: applying it to the mean state gives the mean of the logits, with one product not R."""
        mean = states_R_S_D.float().mean(dim=0).to(states_R_S_D.dtype)
        logits: Tensor = model.get_output_embeddings()(mean)
        divisor = _logits_divisor(model)
        return logits.float() if divisor is None else (logits / divisor).float()

    def losses(self, outputs_S_V: Tensor, targets_S: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs_S_V, targets_S, reduction="none")


def _logits_divisor(model: Any) -> float | None:
    """The number by which this family divides its logits; None: it does not."""
    setting = FAMILIES[model.config.model_type].logits_divisor
    return None if setting is None else float(getattr(model.config, setting))
