"""Temporarily gathers weights that ZeRO 3 has partitioned over the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
from torch import nn


def whole(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[Any]:
    """In this context, every rank holds these parameters in full. All ranks must enter. A no-op without ZeRO 3."""
    if any(hasattr(parameter, "ds_id") for parameter in parameters):
        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(list(parameters))
        return gathered
    return nullcontext()
