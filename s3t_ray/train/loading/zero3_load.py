"""Loads a base model for ZeRO 3 that is too large for one rank.

In: a block in which transformers loads the model. Out: each weight partitioned over the ranks as soon as it is
created. Rank 0 reads the file and distributes it weight by weight. The values are those in the file, so training on
them does not depend on how they were loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config


@contextmanager
def split_while_loading(dtype: torch.dtype) -> Iterator[None]:
    """In this context, `from_pretrained` partitions the weights. Every rank must enter, after joining its group."""
    # transformers keeps only a weak reference to these settings, and partitions weights while they exist.
    settings = HfDeepSpeedConfig(
        {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3},
            "bf16": {"enabled": dtype == torch.bfloat16},  # otherwise the weights would be float32
        }
    )
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del settings
