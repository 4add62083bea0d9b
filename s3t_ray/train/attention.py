"""Attention over packed records without a mask: each record attends only to itself.

A packed row of T tokens holds several records. A [T x T] mask would separate them, but would compute every pair of
tokens. Attention per record computes only the pairs within a record, and its result does not depend on the other
records in the row. `packed_sdpa` makes one call per record and runs on any device. `packed_varlen` makes one call of
torch's variable-length FlashAttention per row and needs an NVIDIA GPU of the Ampere generation or newer.

In: the arguments of transformers' attention call. Never used if a model has a sliding window shorter than a record.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from s3t_ray.config.families import Family
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError

PACKED_SDPA = "s3t_packed_sdpa"
PACKED_VARLEN = "s3t_packed_varlen"

DETERMINISTIC_FLASH_ATTENTION = "2.4.1"
"""The first release of the package flash-attn with a deterministic backward pass."""

Segments = tuple[tuple[int, int], ...]

# From torch 2.13 on, varlen_attn needs a flag for grouped-query attention; earlier versions support it without one.
_GROUPED_QUERIES = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments = (),
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each of `segments` = ((start, end), ...), which cover the T tokens in order.

    query, key, value: [1, heads, T, head size]. Returns [1, T, heads, head size]. Without segments, the row is one
    record. In a decoder, a token attends to itself and earlier tokens; in an encoder (`module.is_causal` False), to
    all tokens of its record.
    """
    if len(segments) <= 1:
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)
    # `split` instead of slicing: the backward pass of each slice would allocate a tensor for the entire row.
    lengths = [end - start for start, end in segments]
    rows = zip(query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True)
    parts = [sdpa_attention_forward(module, *row, None, **kwargs)[0] for row in rows]
    return torch.cat(parts, dim=1), None


def packed_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments = (),
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The same function as `packed_sdpa` in one kernel, for bfloat16 on a GPU.

    Its backward pass is deterministic under `torch.use_deterministic_algorithms`.
    """
    segments = segments or ((0, query.shape[2]),)
    bounds = _bounds(segments, query.device)
    longest = max(end - start for start, end in segments)
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]  # [T, heads, head size]
    window = (-1, 0) if getattr(module, "is_causal", True) else (-1, -1)
    grouped = _GROUPED_QUERIES if query.shape[1] != key.shape[1] else {}
    states = varlen_attn(*rows, bounds, bounds, longest, longest, scale=scaling, window_size=window, **grouped)
    return states.unsqueeze(0), None


@lru_cache(maxsize=1)
def _bounds(segments: Segments, device: torch.device) -> Tensor:
    """The start of each record and the end of the last, int32 [records + 1]; copied to a GPU once per row."""
    bounds = torch.tensor([0, *(end for _, end in segments)], dtype=torch.int32)
    return bounds.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else bounds.to(device)


def register_packed_sdpa() -> str:
    """Register `packed_sdpa` with transformers and return its name. It needs no mask function."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED_SDPA, packed_sdpa)
    return PACKED_SDPA


def register_packed_varlen(device: torch.device) -> str:
    """Register `packed_varlen` with transformers and return its name. Raises ConfigError if `device` cannot run it."""
    missing = None
    if device.type != "cuda":
        missing = f"it needs a GPU, but this rank computes on {device.type}"
    elif not torch.backends.cuda.is_flash_attention_available():
        missing = f"torch {torch.__version__} was built without FlashAttention"
    elif torch.cuda.get_device_capability(device) < (8, 0):
        missing = f"{torch.cuda.get_device_name(device)} is older than NVIDIA's Ampere generation"
    if missing:
        raise ConfigError(f"model.attention is flash_varlen: {missing}", "set model.attention to sdpa")
    ALL_ATTENTION_FUNCTIONS.register(PACKED_VARLEN, packed_varlen)
    return PACKED_VARLEN


def check_flash_attention() -> None:
    """Raise ConfigError unless flash-attn is installed in a version with a deterministic backward pass."""
    try:
        found = version("flash-attn")
    except PackageNotFoundError:
        found = None
    if found is None or Version(found) < Version(DETERMINISTIC_FLASH_ATTENTION):
        raise ConfigError(
            "model.attention is flash_attention_2 and "
            + (
                "the package flash-attn is not installed" if found is None else f"flash-attn {found} cannot repeat bits"
            ),
            f"install flash-attn>={DETERMINISTIC_FLASH_ATTENTION} on every node, or set model.attention to "
            "flash_varlen or sdpa, which come with torch",
        )


def is_padded(config: Config, family: Family) -> bool:
    """Whether micro-batches are padded rectangles: true for a text encoder that recomputes its hidden states.

    Stored hidden states are fed packed. So are images, which all have the same length.
    """
    return family.architecture == "encoder" and config.engine.hidden_states == "recompute"


def attends_to_whole_records(config: Config, family: Family, shape: Any) -> bool:
    """Whether every layer attends to entire records, so that attention can use `segments`.

    `shape`: the model's config. Raises ConfigError if `engine.hidden_states` or `model.attention` does not support
    the model's layers.
    """
    window = getattr(shape, "sliding_window", None) if getattr(shape, "use_sliding_window", True) else None
    kinds = set(getattr(shape, "layer_types", None) or ())
    if config.engine.hidden_states == "store" and len(kinds) > 1:
        raise ConfigError(
            f"{config.model.path} mixes several kinds of attention layers ({', '.join(sorted(kinds))}), which stored "
            "hidden states do not support",
            "set engine.hidden_states: recompute",
        )
    slides = family.architecture != "vision" and window is not None and config.task.max_tokens > window
    whole_records = not is_padded(config, family) and not slides and len(kinds) <= 1
    if family.judges and whole_records and config.model.attention not in ("sdpa", "flash_varlen"):
        raise ConfigError(
            f"model.attention is {config.model.attention}, which cannot pack the records of a {family.name} model for "
            "stored hidden states",
            "set model.attention to sdpa, or engine.hidden_states to recompute",
        )
    if config.model.attention == "flash_varlen" and not whole_records:
        raise ConfigError(
            f"model.attention is flash_varlen, but a layer of {config.model.path} does not attend to whole records "
            f"of up to task.max_tokens = {config.task.max_tokens} tokens",
            "set model.attention to sdpa",
        )
    return whole_records


def choose_attention(config: Config, family: Family, shape: Any, device: torch.device) -> tuple[str, bool]:
    """transformers' name for the attention to load, and whether it accepts `segments`.

    Raises ConfigError if the attention cannot run on `device`.
    """
    wanted, whole_records = config.model.attention, attends_to_whole_records(config, family, shape)
    if wanted == "flash_varlen":
        return register_packed_varlen(device), True
    if wanted == "flash_attention_2":
        check_flash_attention()
    if whole_records and wanted == "sdpa":
        return register_packed_sdpa(), True
    return wanted, False
