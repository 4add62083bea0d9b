"""Attention over packed records without a mask: each record's tokens are a call of their own.

A packed row of T tokens holds several records. A [T x T] mask would keep them apart but compute every pair;
attending record by record computes only the pairs there are (measured on SmolLM2-135M, 2,048 tokens of 180-token
records: attention is 67% of a layer's other work with the mask, 6% without), and each record's result is that of
the record alone. In: transformers' attention call. Never used where a model slides a window shorter than a record.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from s3t_ray.config.families import Family
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError

PACKED_SDPA = "s3t_packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: tuple[tuple[int, int], ...] = (),
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each of `segments` = ((start, end), ...), which cover the T tokens in order.

    query, key, value: [1, heads, T, head size]. Returns [1, T, heads, head size]. Without segments the row is
    one record.
    """
    if len(segments) <= 1:
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)
    parts = [
        sdpa_attention_forward(
            module, query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], None, **kwargs
        )[0]
        for start, end in segments
    ]
    return torch.cat(parts, dim=1), None


def register_packed_sdpa() -> str:
    """Make the function known to transformers and return its name. No mask function goes with it: it needs none."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED_SDPA, packed_sdpa)
    return PACKED_SDPA


def choose_attention(config: Config, family: Family, shape: Any) -> tuple[str, bool]:
    """The name of the attention kernel to train with, and whether it takes records by `segments` instead of a mask.

    `shape`: the model's config. ConfigError: stored hidden states do not support its layers.
    """
    window = getattr(shape, "sliding_window", None) if getattr(shape, "use_sliding_window", True) else None
    kinds = set(getattr(shape, "layer_types", None) or ())
    if config.engine.hidden_states == "store" and len(kinds) > 1:
        raise ConfigError(
            f"{config.model.path} mixes kinds of attention layers ({', '.join(sorted(kinds))}), which stored hidden "
            "states do not support",
            "set engine.hidden_states: recompute",
        )
    slides = window is not None and config.task.max_tokens > window
    if family.task == "causal_lm" and config.model.attention == "sdpa" and not slides and len(kinds) <= 1:
        return register_packed_sdpa(), True
    return config.model.attention, False
