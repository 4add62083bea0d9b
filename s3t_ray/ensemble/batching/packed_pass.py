"""One forward pass over tokens of many texts, packed without padding, each text with its own key-value cache.

In: token ids of the texts one after the other, and their caches. Out: hidden states [R, N, D] of all N tokens, in the
R rows (chains) of the layout in force. Linear layers run over all tokens at once; attention runs per text over its own
keys, so a text never sees another, and none is padded to the longest.

A cache keeps, at each layer, as many rows as run through it: below the lowest adapter that is one.

Shapes: R rows, N tokens of all texts, T tokens of one text in this pass, S keys of one text, H heads, K key-value
heads, d head size.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from s3t_ray.ensemble.frozen_base import FrozenBase

_GROWTH = 128  # tokens: a cache grows by half of itself, and at least by this


class KeyValueCache:
    """Keys and values of one text at every layer; `seen` tokens are whole."""

    def __init__(self, room: int) -> None:
        self._room = room  # tokens to make room for at first
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # [R, K, room, d]
        self.seen = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [R, K, S, d] of the text, after adding those of T new tokens [R, K, T, d].

        They count as seen only when `seen` is raised, after the pass: one that failed can be run again.
        """
        end = self.seen + key.shape[2]
        if layer not in self._layers:
            self._layers[layer] = _empty(key, max(self._room, end)), _empty(value, max(self._room, end))
        keys, values = self._layers[layer]
        if keys.shape[2] < end:
            room = max(end, keys.shape[2] + max(_GROWTH, keys.shape[2] // 2))
            keys, values = _grown(keys, self.seen, room), _grown(values, self.seen, room)
            self._layers[layer] = keys, values
        keys[:, :, self.seen : end] = key
        values[:, :, self.seen : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def prefix(self, tokens: int, room: int) -> KeyValueCache:
        """A cache of its own with the first `tokens` tokens of this one."""
        room = max(room, tokens)
        copy = KeyValueCache(room)
        copy._layers = {
            layer: (_grown(keys, tokens, room), _grown(values, tokens, room))
            for layer, (keys, values) in self._layers.items()
        }
        copy.seen = tokens
        return copy


@dataclass(frozen=True)
class _Text:
    cache: KeyValueCache
    start: int  # of its tokens among the N
    end: int


@dataclass
class _Pass:
    texts: list[_Text]
    masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)


_in_force: ContextVar[_Pass | None] = ContextVar("s3t_ray_pass", default=None)


def install_attention(base: FrozenBase) -> None:
    """Make a causal base obey `packed_hidden`; other passes run as before. Once a base."""
    config = base.model.config
    config._attn_implementation = _EAGER if config._attn_implementation == "eager" else _SDPA


def packed_hidden(base: FrozenBase, texts: Sequence[tuple[Sequence[int], KeyValueCache]]) -> Tensor:
    """Last hidden states [R, N, D], after the final norm, of the new tokens of each text; raises its `seen`.

    Raises DataError for a text that the model cannot read.
    """
    ids: list[int] = []
    positions: list[int] = []
    parts = []
    for tokens, cache in texts:
        base.check_length(cache.seen + len(tokens))
        parts.append(_Text(cache, len(ids), len(ids) + len(tokens)))
        ids.extend(tokens)
        positions.extend(range(cache.seen, cache.seen + len(tokens)))
    device = base.device
    token = _in_force.set(_Pass(parts))
    try:
        output: Tensor = base.model.base_model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            # A mask of four dimensions is taken as it is: none is made, and none is read.
            attention_mask=torch.zeros((1, 1, 1, 1), device=device, dtype=base.dtype),
            use_cache=False,
        ).last_hidden_state
    finally:
        _in_force.reset(token)
    for part in parts:
        part.cache.seen += part.end - part.start
    return output


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention output [R, N, H, d] of the pass in force. Any other pass is transformers' own."""
    running = _in_force.get()
    if running is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **others
        )
        return result
    return _packed(running, _index(module), query, key, value, scaling, sliding_window), None


def _attend_eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **others: Any) -> Any:
    running = _in_force.get()
    if running is None:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, key, value, *rest, **others)
    scaling, window = others.get("scaling"), others.get("sliding_window")
    return _packed(running, _index(module), query, key, value, scaling, window), None


def _index(module: nn.Module) -> int:
    layer = module.layer_idx
    assert isinstance(layer, int)
    return layer


def _packed(
    running: _Pass, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    rows, heads, tokens, size = query.shape
    shared = heads // key.shape[1]  # query heads of one key-value head
    output = query.new_empty((rows, tokens, heads, size))
    for text in running.texts:
        count = text.end - text.start
        keys, values = text.cache.append(layer, key[:, :, text.start : text.end], value[:, :, text.start : text.end])
        own = query[:, :, text.start : text.end]
        if count == 1:
            if window is not None and keys.shape[2] > window:
                keys, values = keys[:, :, -window:], values[:, :, -window:]
            # The heads that share keys stand where a longer text has tokens: nothing is copied for them.
            own = own.reshape(rows, key.shape[1], shared, size)
            made = nn.functional.scaled_dot_product_attention(own, keys, values, scale=scaling)
            output[:, text.start] = made.reshape(rows, heads, size)
            continue
        seen = keys.shape[2]
        plain = seen == count and (window is None or count <= window)
        mask = None if plain else _mask(running, count, seen, window, own)
        made = nn.functional.scaled_dot_product_attention(
            own, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=shared > 1
        )
        output[:, text.start : text.end] = made.transpose(1, 2)
    return output


def _mask(running: _Pass, count: int, seen: int, window: int | None, like: Tensor) -> Tensor:
    """Which of `seen` keys each of the last `count` tokens may see; the same at every layer."""
    known = running.masks.get((count, seen, window))
    if known is None:
        at = torch.arange(seen - count, seen, device=like.device)[:, None]
        keys = torch.arange(seen, device=like.device)[None, :]
        known = keys <= at
        if window is not None:
            known &= keys > at - window
        running.masks[count, seen, window] = known
    return known


def _empty(like: Tensor, room: int) -> Tensor:
    return like.new_empty((like.shape[0], like.shape[1], room, like.shape[3]))


def _grown(old: Tensor, tokens: int, room: int) -> Tensor:
    new = _empty(old, room)
    new[:, :, :tokens] = old[:, :, :tokens]
    return new


# Names of their own: transformers keeps one table per process, in which training has its own functions too.
_SDPA, _EAGER = "s3t_continued_sdpa", "s3t_continued_eager"
for _name, _function, _masks in ((_SDPA, _attend, "sdpa"), (_EAGER, _attend_eager, "eager")):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, ALL_MASK_ATTENTION_FUNCTIONS[_masks])
