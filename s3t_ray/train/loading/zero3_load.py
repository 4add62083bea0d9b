"""Loads a base for ZeRO 3 that no rank could hold whole.

In: a block in which transformers loads the model. Out: each weight split over the ranks as soon as it is made, and
filled from the file, which rank 0 reads and hands out weight by weight. The numbers are those of the file, so what is
trained on them does not depend on how they came to the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config


@contextmanager
def split_while_loading(dtype: torch.dtype) -> Iterator[None]:
    """Inside, `from_pretrained` splits what it loads. Every rank must enter; the worker group must be joined."""
    # transformers finds these settings by a weak reference, and splits only while they are there.
    settings = HfDeepSpeedConfig(
        {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3},
            "bf16": {"enabled": dtype == torch.bfloat16},  # else weights would be made in float32
        }
    )
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del settings
