"""Replaces one technique of the engine with the conventional approach, to measure the technique's gain.

In: the technique's name. Out: nothing. It permanently changes the engine of this process, so each ablation needs its
own process. Techniques that a setting can switch off are not listed here. The losses do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def apply(without: str) -> None:
    """Switch off `without` in this process. Does nothing for other names, which are settings of the engine."""
    if without == "packing":
        _pad_batches()
    if without == "labelled-only head":
        _compute_all_logits()


def _pad_batches() -> None:
    """Pad each record of a micro-batch to the length of the longest."""
    import numpy as np
    import torch

    from s3t_ray.train import feeder
    from s3t_ray.train.examples import IGNORED, Item, make_item
    from s3t_ray.train.forward import pack_items

    def pad(item: Item, length: int) -> Item:
        missing = length - len(item.tokens)
        return make_item(
            item.id,
            item.slice,
            item.row,
            np.pad(item.tokens, (0, missing)).tolist(),
            np.pad(item.targets, (0, missing), constant_values=IGNORED).tolist(),
        )

    def padded(items: Sequence[Item], states: Any | None, device: Any) -> Any:
        longest = max((len(item.tokens) for item in items), default=0)
        if states is not None and items:
            own = states.split([len(item.tokens) for item in items])
            states = torch.cat([torch.nn.functional.pad(each, (0, 0, 0, longest - len(each))) for each in own])
        return pack_items([pad(item, longest) for item in items], states, device)

    vars(feeder)["pack_items"] = padded


def _compute_all_logits() -> None:
    """Compute logits at every position, and ignore the loss of positions without a label."""
    import torch

    from s3t_ray.train.examples import IGNORED
    from s3t_ray.train.forward import Forward

    def loss(self: Any, batch: Any) -> Any:
        states_T_D = self.last_states(batch)
        targets_T = torch.full((len(states_T_D),), IGNORED)
        targets_T[batch.labelled_S] = batch.targets_S
        logits_T_V = self._base.model.lm_head(states_T_D).float()
        return torch.nn.functional.cross_entropy(logits_T_V, targets_T, ignore_index=IGNORED, reduction="sum")

    type.__setattr__(Forward, "loss", loss)
