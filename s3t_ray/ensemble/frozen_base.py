"""The frozen base model as the ensemble uses it: its layers, their linear modules, its body and head.

In: the folder of a base model that the engine can train. Out: hidden states of texts, and logits. Never
trains, never writes, and has no adapters.

Shapes: R rows (models in the ensemble), T tokens, D hidden size, V outputs (vocabulary or head rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.inputs import Example
from s3t_ray.errors import DataError
from s3t_ray.train.attention import attends_to_whole_records
from s3t_ray.train.forward import has_token_types, pixels_of
from s3t_ray.train.loading.load_model import load_model, precision_dtype
from s3t_ray.train.task_models.task_model import Head, task_model


class FrozenBase:
    """A loaded base model.

    `layers[k]` is layer k. `linears` maps the name of every linear module in a layer to the module, and `layer_of` to
    its layer. `isolation`: whether a chain's stages change different layers, or the last stage changes all of them.
    `combine`: whether chains are combined by their logits or as the mean of their adapters. `head_shapes`: the shapes
    of the task head's parameters, which each stage provides. `eos`: the end-of-sequence tokens. `batches`: whether
    several texts can share a forward pass.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.task = task_model(config.task)
        self.isolation = config.lora.isolation
        self.combine = config.ensemble
        self.device = torch.device("cuda" if config.workers.gpus_per_rank and torch.cuda.is_available() else "cpu")
        self.dtype = precision_dtype(config)
        self.max_tokens = read_shape(folder).positions
        # flash_varlen is for training on packed records; here texts are not packed that way.
        attention = "sdpa" if config.model.attention == "flash_varlen" else config.model.attention
        loaded = load_model(config, folder, self.device, attention)
        self.model, self.head_shapes, family = loaded.model, loaded.fresh, loaded.family
        path = family.layers_path
        # If attention needs a mask, transformers builds it per text, and it would not fit rows that branch off later.
        self.batches = attention == "sdpa" and (
            family.judges or attends_to_whole_records(config, family, self.model.config)
        )
        self.eos = _eos(self.model)
        self._head_parts = family.head_parts
        self.layers: tuple[nn.Module, ...] = tuple(self.model.get_submodule(path).children())
        # Walk down from the modules instead of matching names, where `layers.3` would also match `layers.31`.
        self.linears: dict[str, nn.Linear] = {}
        self.layer_of: dict[str, int] = {}
        for index, layer in enumerate(self.layers):
            for inside, module in layer.named_modules():
                if isinstance(module, nn.Linear):
                    self.linears[f"{path}.{index}.{inside}"] = module
                    self.layer_of[f"{path}.{index}.{inside}"] = index

    def hidden(self, input_ids: Sequence[int], token_types: Sequence[int] = ()) -> Tensor:
        """The last hidden states [R, T, D] of one text of T tokens, after the final norm.

        R is 1, or the number of rows of the active layout (`row_lora.py`). Raises DataError if the text is empty or too
        long for the model. For generation, use `packed_pass.py`.
        """
        self.check_length(len(input_ids))
        ids = torch.tensor([list(input_ids)], dtype=torch.long, device=self.device)
        others: dict[str, Any] = {"use_cache": False} if self.task.generates else {}
        if token_types and has_token_types(self.model):
            others["token_type_ids"] = torch.tensor([list(token_types)], dtype=torch.long, device=self.device)
        output: Tensor = self.model.base_model(input_ids=ids, **others).last_hidden_state
        return output

    def hidden_of(self, examples: Sequence[Example]) -> Tensor:
        """The last hidden states [R, N, T, D] of N records of T tokens each. No record affects another.

        Call it within `row_lora.applied(layout, N)`. N may exceed 1 only if `batches` is True. Raises DataError if a
        record is empty or too long for the model.
        """
        self.check_length(len(examples[0].input_ids))
        pictures = [each.picture for each in examples if each.picture is not None]
        if pictures:
            body = self.model.base_model
            seen: Tensor = body(pixel_values=pixels_of(pictures, body)).last_hidden_state
            return seen.unflatten(0, (-1, len(examples)))
        ids = torch.tensor([list(each.input_ids) for each in examples], dtype=torch.long, device=self.device)
        others: dict[str, Any] = {"use_cache": False} if self.task.generates else {}
        if has_token_types(self.model) and any(each.token_types for each in examples):
            kinds = [list(each.token_types or [0] * len(each.input_ids)) for each in examples]
            others["token_type_ids"] = torch.tensor(kinds, dtype=torch.long, device=self.device)
        output: Tensor = self.model.base_model(input_ids=ids, **others).last_hidden_state
        return output.unflatten(0, (-1, len(examples)))

    def check_length(self, tokens: int) -> None:
        """Raise DataError if a text of `tokens` tokens is empty or too long for the model."""
        if tokens < 1:
            raise DataError("the text is empty: it has no tokens", "give at least one token")
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise DataError(
                f"the text has {tokens} tokens, but the model reads at most {self.max_tokens}", "shorten the text"
            )

    @property
    def output_rows(self) -> int:
        """V: the size of the vocabulary, or the rows of the task head."""
        return self.task.task.head_rows or int(self.model.config.vocab_size)

    def outputs(self, hidden: Tensor, heads: Sequence[Head]) -> Tensor:
        """The combined output of R models at S positions, float32 [S, V], from hidden states [R, S, D] and heads."""
        return self.task.outputs(self.model, self._head_parts, hidden, heads)


def _eos(model: Any) -> frozenset[int]:
    settings = getattr(model, "generation_config", None)
    told = None if settings is None else settings.eos_token_id
    return frozenset(told if isinstance(told, list) else [] if told is None else [told])
