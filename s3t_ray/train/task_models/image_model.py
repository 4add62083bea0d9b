"""The task `image_classification`: a vision model whose head scores each class. Legend as in `task_model.py`."""

from __future__ import annotations

from typing import Any

from s3t_ray.train.task_models.class_model import ClassModel


class ImageModel(ClassModel):
    """An image belongs to one of `task.labels`."""

    peft_task = None  # PEFT has no such task type, and wraps the model unchanged

    def model_class(self) -> Any:
        from transformers import AutoModelForImageClassification

        return AutoModelForImageClassification
