"""Picks the fastest attention that works on this device, so that one failing kernel does not waste the GPU time.

In: the device. Out: a value of `model.attention`, tested forward and backward on a small pack.
"""

from __future__ import annotations

import traceback
from types import SimpleNamespace
from typing import Any

from gpu.card import Device


def best_attention(device: Device) -> str:
    """flash_varlen if it works, else sdpa. Prints the failure."""
    if not device.on_gpu:
        return "sdpa"
    import torch

    from s3t_ray.errors import S3TError
    from s3t_ray.train.attention import packed_varlen, register_packed_varlen

    try:
        register_packed_varlen(torch.device("cuda", 0))
        rows = [torch.randn(1, 96, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        module: Any = SimpleNamespace()
        query, key, value = (each.transpose(1, 2) for each in rows)
        states, _ = packed_varlen(module, query, key, value, None, ((0, 64), (64, 96)), scaling=0.125)
        states.float().sum().backward()
        torch.cuda.synchronize()
    except (RuntimeError, TypeError, S3TError):
        traceback.print_exc()
        return "sdpa"
    return "flash_varlen"
