"""One forward pass over the tokens of many texts, packed without padding, each text with its own key-value cache.

In: the token ids of the texts, concatenated, and their caches. Out: hidden states [R, N, D] of all N tokens, in the R
rows (chains) of the active layout. Linear layers process all tokens at once. Attention runs per text over its own
keys, so no text attends to another, and none is padded to the longest.

A decoding text contributes one token. Decoding texts with caches in the same arena share one attention operation, with
a mask up to the length of the longest; each writes its keys in place. Texts that read a prompt attend one at a time.

Shapes: R rows, N tokens of all texts, T tokens of one text in this pass, S keys of one text, B texts that decode
together, H heads, K key-value heads, d head size, D hidden size.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from s3t_ray.ensemble.batching.cache_arena import CacheArena, KeyValueCache
from s3t_ray.ensemble.frozen_base import FrozenBase


@dataclass(frozen=True)
class _Text:
    """A text that reads several tokens, or decodes alone."""

    cache: KeyValueCache
    start: int  # of its tokens among all N
    end: int


@dataclass(frozen=True)
class _Decoding:
    """Decoding texts of one arena, with consecutive tokens among the N. One operation serves all of them."""

    arena: CacheArena
    start: int
    slots: Tensor  # [B]
    places: Tensor  # [B]: position of the new token in its text
    used: int  # slots of the arena, including those whose result is discarded because they do not decode
    in_order: bool  # every used slot decodes, and the texts are in slot order
    longest: int  # tokens in the longest text, including the new one
    masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.start + len(self.slots)


@dataclass
class _Pass:
    texts: list[_Text]
    decoding: list[_Decoding]
    masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)


_in_force: ContextVar[_Pass | None] = ContextVar("s3t_ray_pass", default=None)


def install_attention(base: FrozenBase) -> None:
    """Install the attention that `packed_hidden` needs on a causal base. Other passes are unaffected. Call it once."""
    config = base.model.config
    config._attn_implementation = _EAGER if config._attn_implementation == "eager" else _SDPA


def packed_hidden(base: FrozenBase, texts: Sequence[tuple[Sequence[int], KeyValueCache]]) -> Tensor:
    """The last hidden states [R, N, D], after the final norm, of the new tokens of each text.

    Increases `seen` of each cache. Raises DataError if a text is empty or too long for the model.
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
    token = _in_force.set(_planned(parts, device))
    try:
        output: Tensor = base.model.base_model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            # transformers passes a four-dimensional mask through unchanged. Our attention ignores it.
            attention_mask=torch.zeros((1, 1, 1, 1), device=device, dtype=base.dtype),
            use_cache=False,
        ).last_hidden_state
    finally:
        _in_force.reset(token)
    for part in parts:
        part.cache.seen += part.end - part.start
    return output


def _planned(parts: Sequence[_Text], device: torch.device) -> _Pass:
    """Group the texts that share an attention operation. Their tokens are consecutive, so they form a slice."""
    planned = _Pass([], [])
    for _, run in groupby(parts, key=lambda part: part.cache.arena if part.end - part.start == 1 else part):
        texts = list(run)
        arena = texts[0].cache.arena
        used = arena.slots
        if len(texts) == 1 or used > 2 * len(texts):  # too few of the slots decode: most results would be discarded
            planned.texts += texts
            continue
        slots, seen = [text.cache.slot for text in texts], [text.cache.seen for text in texts]
        planned.decoding.append(
            _Decoding(
                arena,
                texts[0].start,
                torch.tensor(slots, device=device),
                torch.tensor(seen, device=device),
                used,
                slots == list(range(used)),
                max(seen) + 1,
            )
        )
    return planned


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
    """The attention output [R, N, H, d] of the active packed pass. Without one, call transformers' function."""
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
    shared = heads // key.shape[1]  # query heads per key-value head
    output = query.new_empty((rows, tokens, heads, size))
    for group in running.decoding:
        columns = slice(group.start, group.end)
        output[:, columns] = _decode(
            group, layer, query[:, :, columns], key[:, :, columns], value[:, :, columns], scaling, window
        )
    for text in running.texts:
        count = text.end - text.start
        keys, values = text.cache.append(layer, key[:, :, text.start : text.end], value[:, :, text.start : text.end])
        own = query[:, :, text.start : text.end]
        if count == 1:
            if window is not None and keys.shape[2] > window:
                keys, values = keys[:, :, -window:], values[:, :, -window:]
            # Heads that share keys use the token dimension, which avoids copying the keys.
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


def _decode(
    group: _Decoding,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """The attention output [R, B, H, d] of one new token per text, from queries [R, H, B, d]. Stores the keys."""
    rows, heads, _, size = query.shape
    keys, values = group.arena.block(layer, key, value)
    keys[group.slots, :, :, group.places] = key.permute(2, 0, 1, 3)
    values[group.slots, :, :, group.places] = value.permute(2, 0, 1, 3)
    asked = query.permute(2, 0, 1, 3)  # [B, R, H, d]
    if not group.in_order:
        asked = asked.new_zeros((group.used, rows, heads, size)).index_copy_(0, group.slots, asked)
    made = nn.functional.scaled_dot_product_attention(
        # Heads that share keys use the token dimension, which avoids copying the keys.
        asked.reshape(group.used * rows, key.shape[1], -1, size),
        keys[: group.used].flatten(0, 1)[:, :, : group.longest],
        values[: group.used].flatten(0, 1)[:, :, : group.longest],
        attn_mask=_decoding_mask(group, rows, window, query),
        scale=scaling,
    )
    made = made.reshape(group.used, rows, heads, -1)
    return (made if group.in_order else made.index_select(0, group.slots)).transpose(0, 1)


def _decoding_mask(group: _Decoding, rows: int, window: int | None, like: Tensor) -> Tensor:
    """The additive mask [slots x R, 1, 1, S]. It is the same for every layer with this number of rows."""
    known = group.masks.get((rows, window))
    if known is None:
        at = torch.arange(group.longest, device=like.device)[None, :]
        unseen = at > group.places[:, None]
        if window is not None:
            unseen |= at <= group.places[:, None] - window
        mask = like.new_zeros((group.used, group.longest))  # other slots see all keys, since a row needs at least one
        mask[group.slots] = mask[group.slots].masked_fill_(unseen, float("-inf"))
        known = mask.repeat_interleave(rows, dim=0)[:, None, None]
        group.masks[rows, window] = known
    return known


def _mask(running: _Pass, count: int, seen: int, window: int | None, like: Tensor) -> Tensor:
    """The mask [count, seen] of the keys that each of the last `count` tokens may see. Same for every layer."""
    known = running.masks.get((count, seen, window))
    if known is None:
        at = torch.arange(seen - count, seen, device=like.device)[:, None]
        keys = torch.arange(seen, device=like.device)[None, :]
        known = keys <= at
        if window is not None:
            known &= keys > at - window
        running.masks[count, seen, window] = known
    return known


# transformers has one table per process, where training registers its functions too, so these names are unique.
_SDPA, _EAGER = "s3t_continued_sdpa", "s3t_continued_eager"
for _name, _function, _masks in ((_SDPA, _attend, "sdpa"), (_EAGER, _attend_eager, "eager")):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, ALL_MASK_ATTENTION_FUNCTIONS[_masks])
