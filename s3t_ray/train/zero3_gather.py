"""Weights that ZeRO 3 has split over the ranks, made whole for a moment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
from torch import nn


def whole(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[Any]:
    """Inside, these parameters are whole on every rank (all ranks must enter): at ZeRO 3 gathered, else they are."""
    if any(hasattr(parameter, "ds_id") for parameter in parameters):
        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(list(parameters))
        return gathered
    return nullcontext()
