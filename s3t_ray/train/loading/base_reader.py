"""What turns records into what a base reads, for the run's task: a tokenizer, or a transform of images.

In: the folder of a base that was checked (`check_base.py`). Out: the second argument of `data.inputs.encode`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS
from s3t_ray.data.images.image_transform import read_transform


def base_reader(folder: Path | str, task: Task) -> Any:
    """The tokenizer of the base, or its ImageTransform where the task is about images. Raises ConfigError."""
    if TASKS[task.kind].architecture == "vision":
        return read_transform(Path(folder), task)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
