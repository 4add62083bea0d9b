"""Parses GPUs as a user writes them: `8xH100`, `H100`, `4x24GiB`.

In: that text. Out: `Gpus`. Pure. Memory is what a process can use, slightly less than the advertised amount. Rates are
the vendors' figures for dense bfloat16 products, which no training reaches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3t_ray.errors import ConfigError
from s3t_ray.plan.propose import GIB, Gpus


@dataclass(frozen=True)
class GpuKind:
    """One GPU model."""

    memory_gib: int
    bfloat16_teraflops: float
    fast_links: bool  # whether nodes with this GPU usually have NVLink or similar between the GPUs


GPU_KINDS = {
    "B200": GpuKind(178, 2250, True),
    "H200": GpuKind(139, 989, True),
    "H100": GpuKind(79, 989, True),
    "A100": GpuKind(79, 312, True),
    "A100-40GB": GpuKind(39, 312, True),
    "L40S": GpuKind(44, 362, False),
    "A10G": GpuKind(22, 70, False),
    "L4": GpuKind(22, 121, False),
    "RTX4090": GpuKind(23, 165, False),
}

_TEXT = re.compile(r"(?:(?P<count>\d{1,6})x)?(?P<kind>[a-z0-9-]*[a-z][a-z0-9-]*)", re.IGNORECASE)
_MEMORY = re.compile(r"(\d{1,4})GiB", re.IGNORECASE)


def parse_gpus(text: str) -> Gpus:
    """The GPUs that `text` names: a known model or the memory of one GPU in GiB, optionally preceded by a count.

    GPUs given only by their memory are assumed to have slow links. Raises ConfigError for any other text.
    """
    matched = _TEXT.fullmatch(text.strip())
    count = int(matched["count"] or 1) if matched else 0
    if matched is None or count < 1:
        raise _unknown(text)
    if sized := _MEMORY.fullmatch(matched["kind"]):
        gib = int(sized[1])
        if gib < 1:
            raise _unknown(text)
        return Gpus(f"{count} x {gib} GiB", count, gib * GIB, fast_links=False)
    name = next((name for name in GPU_KINDS if name.lower() == matched["kind"].lower()), None)
    if name is None:
        raise _unknown(text)
    kind = GPU_KINDS[name]
    rate = kind.bfloat16_teraflops * 1e12
    return Gpus(f"{count} x {name}", count, kind.memory_gib * GIB, kind.fast_links, rate)


def _unknown(text: str) -> ConfigError:
    return ConfigError(
        f"--gpu {text}: unknown GPUs",
        f"give a count and a model, such as 8xH100 ({', '.join(GPU_KINDS)}), or the memory of a GPU, such as 8x80GiB",
    )
