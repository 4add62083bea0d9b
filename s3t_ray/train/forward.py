"""Runs one micro-batch through the model: records in, summed loss out, differentiable in the adapters.

In: items and, with stored hidden states, the states that enter the lowest layer of the stage. Out: a scalar. A
micro-batch is either a packed row (records one after another, none of which attends to another) or, for encoders that
recompute all their hidden states, a padded rectangle. An empty micro-batch has a loss of zero but still runs the
entire model, so that collectives match.
Legend: T tokens of a packed row, R records, S labelled positions, C classes, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s3t_ray.data.images.image_transform import Picture
from s3t_ray.train.examples import Item, Targets, Tokens
from s3t_ray.train.loading.base import Base
from s3t_ray.train.task_models.task_model import JudgingModel


@dataclass(frozen=True)
class Packed:
    """Records one after another in one row. Exactly one of tokens, states and pictures is the input."""

    tokens_1_T: Tensor | None  # token ids
    states_1_T_D: Tensor | None  # hidden states that enter the lowest layer
    pictures: tuple[Picture, ...]  # images, one per record, for a vision model
    types_1_T: Tensor | None  # 1 in the second text of each pair; None: all are 0
    positions_1_T: Tensor  # restart at 0 for each record
    segments: tuple[tuple[int, int], ...]
    labelled_S: Tensor
    targets_S: Tensor


@dataclass(frozen=True)
class Padded:
    """One record per row, padded on the right."""

    tokens_R_T: Tensor
    mask_R_T: Tensor
    types_R_T: Tensor | None  # as in Packed
    targets_R: Tensor  # empty for an empty micro-batch


def pack_items(items: Sequence[Item], states_T_D: Tensor | None, device: torch.device) -> Packed:
    """Pack these items into one row. `states_T_D`: their concatenated hidden states; None: start from the tokens."""
    lengths = [len(item.tokens) for item in items] or [1]
    ends = list(accumulate(lengths))
    segments = tuple((end - length, end) for end, length in zip(ends, lengths, strict=True))
    counted = [item.counted for item in items]
    labelled = [start + places for (start, _), places in zip(segments, counted, strict=False)]
    targets = [item.targets[places] for item, places in zip(items, counted, strict=True)]
    tokens_1_T = states_1_T_D = types_1_T = None
    if states_T_D is None:
        tokens_1_T = _sent(_joined([item.tokens for item in items], 0).unsqueeze(0), device)
        if any(item.token_types is not None for item in items):
            types_1_T = _sent(torch.cat([_types(item) for item in items]).unsqueeze(0), device)
    elif items:
        states_1_T_D = states_T_D.unsqueeze(0).to(device, non_blocking=True)
    else:
        states_1_T_D = torch.zeros(1, 1, states_T_D.shape[1], device=device)
    return Packed(
        tokens_1_T,
        states_1_T_D,
        () if states_T_D is not None else tuple(item.picture for item in items if item.picture is not None),
        types_1_T,
        _sent(torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0), device),
        segments,
        _sent(_joined_or_empty(labelled), device),
        _sent(_joined_or_empty(targets), device),
    )


def pad_items(items: Sequence[Item], padding: int, device: torch.device) -> Padded:
    """Pad these items to one rectangle. Without items, it has a single token and no target."""
    rows = [_joined([item.tokens], padding) for item in items] or [torch.tensor([padding])]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    types = None
    if any(item.token_types is not None for item in items):
        types = _sent(nn.utils.rnn.pad_sequence([_types(item) for item in items], batch_first=True), device)
    targets = _joined_or_empty([item.targets[:1] for item in items])
    return Padded(_sent(tokens, device), _sent(mask, device), types, _sent(targets, device))


def _types(item: Item) -> Tensor:
    """Token types [T] of one record, int64."""
    if item.token_types is None:
        return torch.zeros(len(item.tokens), dtype=torch.long)
    return torch.from_numpy(item.token_types.astype(np.int64))


def _joined_or_empty(parts: Sequence[Targets] | Sequence[NDArray[np.intp]]) -> Tensor:
    """Concatenate to one row: int64 for positions, tokens and classes, float32 for values. No parts: an empty row."""
    if not parts:
        return torch.empty(0, dtype=torch.long)
    row = np.concatenate(parts)
    return torch.from_numpy(row if row.dtype.kind == "f" else row.astype(np.int64))


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """`values` on `device`. Uses pinned memory: a plain copy to a GPU would wait for all work already queued there."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _joined(parts: Sequence[Tokens], stand_in: int) -> Tensor:
    """Concatenate to one int64 row. No parts: the single value `stand_in`."""
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)) if parts else torch.tensor([stand_in])


def pixels_of(pictures: Sequence[Picture], body: nn.Module) -> Tensor:
    """The pixels [R x 3 x height x width] of the images, in the dtype and on the device of `body`."""
    like = next(body.parameters())
    return torch.from_numpy(np.stack([picture.pixels() for picture in pictures])).to(like.device, like.dtype)


def _black(body: nn.Module) -> Tensor:
    """An image of zeros [1 x 3 x height x width]."""
    like, side = next(body.parameters()), int(body.config.image_size)
    return torch.zeros(1, 3, side, side, device=like.device, dtype=like.dtype)


def has_token_types(model: nn.Module) -> bool:
    """Whether the model has a token type embedding that marks the second text of a pair."""
    return int(getattr(model.config, "type_vocab_size", 1)) > 1


class _Through(nn.Module):
    """Identity in place of the first layer that is not run."""

    def forward(self, states: Tensor, *_others: object, **_named: object) -> Tensor:
        return states


@contextmanager
def with_layers(base: Base, layers: nn.ModuleList) -> Iterator[None]:
    """Replace the model's layers by `layers` within this context."""
    parent_path, _, leaf = base.family.layers_path.rpartition(".")
    parent = base.model.get_submodule(parent_path)
    before = getattr(parent, leaf)
    setattr(parent, leaf, layers)
    try:
        yield
    finally:
        setattr(parent, leaf, before)


class Forward:
    """Runs micro-batches through one base model."""

    def __init__(self, base: Base, dtype: torch.dtype) -> None:
        self._base = base
        self._dtype = dtype
        self._layers: nn.ModuleList = base.model.get_submodule(base.family.layers_path)  # all of them

    def autocast(self) -> AbstractContextManager[object]:
        """With bfloat16, the base computes in bfloat16, and float32 adapters are cast where they are used."""
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(next(self._base.model.parameters()).device.type, dtype=self._dtype)

    def last_states(self, batch: Packed) -> Tensor:
        """The hidden states [T x D] after the final norm."""
        if self._base.family.architecture == "vision":
            return self._seen(batch)
        if self._base.family.architecture == "encoder":
            return self._encoded(batch)
        arguments: dict[str, object] = {"position_ids": batch.positions_1_T, "use_cache": False}
        if self._base.packed_attention:
            arguments["segments"] = batch.segments
        if batch.states_1_T_D is not None:
            arguments["inputs_embeds"] = batch.states_1_T_D
        else:
            arguments["input_ids"] = batch.tokens_1_T
        with self._unscaled(batch.states_1_T_D is not None):
            states: Tensor = self._base.model.model(**arguments).last_hidden_state
        return states[0]

    def _encoded(self, batch: Packed) -> Tensor:
        """`last_states` for an encoder. Its embeddings end with a norm that stored states have already passed.

        Skips the pooler, which would only see the first record of the row.
        """
        body: Any = self._base.model.base_model
        states = batch.states_1_T_D
        if states is None:
            padding = self._base.model.config.pad_token_id
            first = padding + 1 if self._base.family.positions_after_padding else 0
            positions = batch.positions_1_T + first
            types = batch.types_1_T if has_token_types(self._base.model) else None
            states = body.embeddings(input_ids=batch.tokens_1_T, position_ids=positions, token_type_ids=types)
        encoded: Tensor = body.encoder(states, segments=batch.segments).last_hidden_state
        return encoded[0]

    def _seen(self, batch: Packed) -> Tensor:
        """`last_states` for a vision model. Embeds images one at a time, so that none depends on another."""
        body: Any = self._base.model.base_model
        states = batch.states_1_T_D
        if states is None:
            # An empty micro-batch embeds a black image: with ZeRO 3, every rank must gather the weights.
            images = [pixels_of([picture], body) for picture in batch.pictures] or [_black(body)]
            states = torch.cat([body.embeddings(image) for image in images], dim=1)
            states = states[:, : batch.segments[-1][1]]
        for layer in body.layers:
            states = layer(states, None, segments=batch.segments)
        normed: Tensor = body.layernorm(states)
        return normed[0]

    @contextmanager
    def _unscaled(self, stored: bool) -> Iterator[None]:
        """Set the embedding multiplier to 1 for stored states, which have been scaled already."""
        body: Any = self._base.model.model
        if not (stored and self._base.family.scales_embeddings):
            yield
            return
        before, body.embedding_multiplier = body.embedding_multiplier, 1.0
        try:
            yield
        finally:
            body.embedding_multiplier = before

    def states_entering(self, layers: Sequence[int], batch: Packed, start: int = 0) -> dict[int, Tensor]:
        """The hidden states [T x D] that enter each of `layers`, by layer index in the full model.

        `batch` holds the tokens, or the states that enter layer `start`. Runs only the layers in between.
        """
        caught: dict[int, Tensor] = {}

        def catch(layer: int) -> Callable[..., None]:
            return lambda _module, inputs: caught.__setitem__(layer, inputs[0][0])

        last = max(layers)
        run = nn.ModuleList([*self._layers[start:last], _Through()])
        handles = [run[layer - start].register_forward_pre_hook(catch(layer)) for layer in layers]
        try:
            with with_layers(self._base, run), self.autocast():
                self.last_states(batch)
        finally:
            for handle in handles:
                handle.remove()
        return {layer: states.to(self._dtype) for layer, states in caught.items()}

    def loss(self, batch: Packed | Padded) -> Tensor:
        """The summed loss of the micro-batch, float32."""
        base = self._base
        with self.autocast():
            if isinstance(batch, Padded):
                assert isinstance(base.task, JudgingModel)
                types = (
                    {}
                    if batch.types_R_T is None or not has_token_types(base.model)
                    else {"token_type_ids": batch.types_R_T}
                )
                scores_R_C: Tensor = base.model(
                    input_ids=batch.tokens_R_T, attention_mask=batch.mask_R_T, **types
                ).logits
                return base.task.summed(scores_R_C, batch.targets_R)
            states_T_D = self.last_states(batch)
            return base.task.loss(base.model, base.family.head_parts, states_T_D, batch.labelled_S, batch.targets_S)
