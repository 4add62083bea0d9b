"""The frozen base model as the ensemble sees it: its layers, their linear modules, its body and head.

In: the folder of a base model that the engine can train. Out: hidden states of one text, and logits.
It never learns, never writes, and knows no adapter.

Shapes: R rows (models that answer together), T tokens, D hidden size, V outputs (vocabulary or head rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, Cache, DynamicCache

from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError, DataError
from s3t_ray.train.families import Family, family_of
from s3t_ray.train.quantised import compute_unpacked, quantisation
from s3t_ray.train.task_model import Head, task_model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FrozenBase:
    """A loaded base model.

    `layers[k]` is layer k; `linears` names every linear module inside a layer, and `layer_of` says which
    layer that is. `head_shapes` are the parameters of the task head that the base
    folder does not hold: each stage brings its own. `eos` are the tokens that end a text.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.task = task_model(config.task)
        self.device = torch.device("cuda" if config.workers.gpus_per_rank and torch.cuda.is_available() else "cpu")
        self.dtype = _DTYPES[config.engine.precision]
        self.max_tokens = read_shape(folder).positions
        family = family_of(AutoConfig.from_pretrained(folder).model_type, config)
        path = family.layers_path
        self.model, fresh = _load(config, folder, self.device, self.dtype, family)
        self.head_shapes = {name: self.model.get_parameter(name).shape for name in fresh}
        self.eos = _eos(self.model)
        self._head_parts = family.head_parts
        self.layers: tuple[nn.Module, ...] = tuple(self.model.get_submodule(path).children())
        # Built from the modules, downward: no layer is ever found by a piece of a name, with which
        # `layers.3` would also find `layers.31`.
        self.linears: dict[str, nn.Linear] = {}
        self.layer_of: dict[str, int] = {}
        for index, layer in enumerate(self.layers):
            for inside, module in layer.named_modules():
                if isinstance(module, nn.Linear):
                    self.linears[f"{path}.{index}.{inside}"] = module
                    self.layer_of[f"{path}.{index}.{inside}"] = index

    def new_cache(self) -> Cache:
        """An empty key-value cache; each layer keeps as many rows as run through it."""
        return DynamicCache(config=self.model.config)

    def hidden(self, input_ids: Sequence[int], cache: Cache | None = None) -> Tensor:
        """Last hidden states [R, T, D] of one text of T tokens, after the final norm.

        R is 1, or what the adapters in force make of it (`row_lora.py`). With a `cache` the tokens follow
        those that it has seen, and it grows by them. Raises DataError for a text that the model cannot read.
        """
        seen = 0 if cache is None else int(cache.get_seq_length())
        self.check_length(seen + len(input_ids))
        ids = torch.tensor([list(input_ids)], dtype=torch.long, device=self.device)
        caching = {"past_key_values": cache, "use_cache": cache is not None} if self.task.generates else {}
        output: Tensor = self.model.base_model(input_ids=ids, **caching).last_hidden_state
        return output

    def check_length(self, tokens: int) -> None:
        """Raise DataError when a text of `tokens` tokens is empty or longer than the model can read."""
        if tokens < 1:
            raise DataError("the text is empty: it has no token", "give at least one token")
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise DataError(
                f"the text has {tokens} tokens, but the model reads at most {self.max_tokens}", "shorten the text"
            )

    def outputs(self, hidden: Tensor, heads: Sequence[Head]) -> Tensor:
        """What R models say together at S positions, float32 [S, V], from hidden states [R, S, D] and their heads."""
        return self.task.outputs(self.model, self._head_parts, hidden, heads)


def _load(
    config: Config, folder: Path, device: torch.device, dtype: torch.dtype, family: Family
) -> tuple[Any, list[str]]:
    """The model with its head, frozen, and the names of the parameters that the folder does not hold."""
    # flash_varlen is a way to train on packs of records; here texts come one by one.
    attention = "sdpa" if config.model.attention == "flash_varlen" else config.model.attention
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    arguments |= quantisation(config, device, dtype)
    head_rows = config.task.head_rows
    auto = task_model(config.task).model_class()
    if head_rows:
        arguments["num_labels"] = head_rows
    try:
        model, report = auto.from_pretrained(folder, local_files_only=True, output_loading_info=True, **arguments)
    except (OSError, ValueError) as error:
        raise ConfigError(f"base model {folder} cannot be loaded: {error}", "restore or correct model.path") from error
    fresh = sorted(report["missing_keys"])
    strange = [name for name in fresh if not name.startswith(tuple(f"{part}." for part in family.head_parts))]
    if strange or (fresh and not head_rows):
        raise ConfigError(
            f"base model {folder} lacks weights: {', '.join((strange or fresh)[:5])}", "restore the base model's folder"
        )
    if config.model.quantize == "none":
        model.to(device)
    compute_unpacked(model, dtype)  # as it was trained
    return model.requires_grad_(False).eval(), fresh


def _eos(model: Any) -> frozenset[int]:
    settings = getattr(model, "generation_config", None)
    told = None if settings is None else settings.eos_token_id
    return frozenset(told if isinstance(told, list) else [] if told is None else [told])
