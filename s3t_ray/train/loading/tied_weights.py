"""Refuses a base whose config.json ties two weights while its files store different values for them.

In: the folder, its stored weights, and the model that config.json describes. Loaders disagree on such a base:
transformers uses the stored vocabulary head and only logs it, while vLLM and llama.cpp use the embedding. An adapter
trained under one loader would then answer differently under another. Reads the two weights only if both are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from s3t_ray.config.base_files import StoredWeight
from s3t_ray.errors import ConfigError

_ROWS = 1024  # rows compared at once, to bound memory: 32 MiB per weight at a hidden size of 4,096


def check_tied_weights(folder: Path, stored: Mapping[str, StoredWeight], model: Any) -> None:
    """Raise ConfigError if two weights of `model` (any device) are tied by its config but stored with other values."""
    prefix = f"{model.base_model_prefix}."
    for tied, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        names = [name if name in stored else name.removeprefix(prefix) for name in (tied, source)]
        if all(name in stored for name in names) and not _equal(folder, stored, names[0], names[1]):
            raise ConfigError(
                f"{folder}: config.json says tie_word_embeddings: true, but {names[0]} and {names[1]} are stored with "
                "different values; which one the output uses depends on the loader",
                f"set tie_word_embeddings to false in config.json if the model was trained with a vocabulary head of "
                f"its own; otherwise remove {names[0]} from the weights (save the model with save_pretrained)",
            )


def _equal(folder: Path, stored: Mapping[str, StoredWeight], left: str, right: str) -> bool:
    """Whether two stored weights have the same shape and values, whatever their dtypes."""
    if stored[left].shape != stored[right].shape:
        return False
    with (
        safe_open(folder / stored[left].file, framework="pt") as one,
        safe_open(folder / stored[right].file, framework="pt") as other,
    ):
        ours, theirs = one.get_slice(left), other.get_slice(right)
        return all(
            torch.equal(ours[start : start + _ROWS].double(), theirs[start : start + _ROWS].double())
            for start in range(0, stored[left].shape[0], _ROWS)
        )
