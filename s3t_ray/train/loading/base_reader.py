"""Loads the reader that turns records into model inputs for the run's task: a tokenizer, or an image transform.

In: the folder of a base that has been checked (`check_base.py`). Out: the second argument of
`data.readers.inputs.encode`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS
from s3t_ray.data.images.image_transform import read_transform


def base_reader(folder: Path | str, task: Task) -> Any:
    """The base's tokenizer, or its ImageTransform for an image task. Raises ConfigError if the transform is invalid."""
    if TASKS[task.kind].architecture == "vision":
        return read_transform(Path(folder), task)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
