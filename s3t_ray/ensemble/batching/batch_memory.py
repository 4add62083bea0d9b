"""Computes how many generations and cached tokens fit on this machine.

In: the loaded base, and the maximum number of models in the ensemble. Out: `BatchLimits`.
"""

from __future__ import annotations

import os

import torch

from s3t_ray.ensemble.batching.batch_plan import BatchLimits
from s3t_ray.ensemble.frozen_base import FrozenBase

ROWS = 64
CPU_STEP_TOKENS, GPU_STEP_TOKENS = 128, 1024
"""The maximum number of tokens per pass. More is barely faster per token, and a deletion has to wait for one pass."""
CPU_SHARE, GPU_SHARE = 0.25, 0.6
"""The cache's share of the machine's total memory (CPU), or of the memory left after loading the weights (GPU)."""
MORE_SLOTS = 1.25
"""Cache blocks may have up to this many times the slots in use (`cache_arena.py`)."""


def batch_limits(base: FrozenBase, members: int) -> BatchLimits:
    """The limits for an ensemble of `members` models."""
    on_gpu = base.device.type == "cuda"
    if on_gpu:
        room = GPU_SHARE * torch.cuda.mem_get_info(base.device)[0]
    else:
        room = CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    tokens = max(1, int(room / (cache_bytes_per_token(base, members) * MORE_SLOTS)))
    return BatchLimits(ROWS, GPU_STEP_TOKENS if on_gpu else CPU_STEP_TOKENS, tokens)


def cache_bytes_per_token(base: FrozenBase, members: int) -> int:
    """The bytes of one token's keys and values over all layers, if every layer runs once per member."""
    config = base.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    element = torch.empty((), dtype=base.dtype).element_size()
    return int(2 * len(base.layers) * heads * size * element * members)
