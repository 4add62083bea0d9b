"""What the engine and Hugging Face's Trainer both train at Llama-3-8B's shape: the same base, records and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchlib.random_base import SHAPES

from gpu.stage_lab import Setup, like_alpaca, texts

STEPS = 5


@dataclass(frozen=True)
class Workload:
    """Records of one kind, and how many of them Hugging Face's Trainer takes in one forward pass."""

    name: str
    setup: Setup
    contents: list[str]
    device_batch: int


def workloads(dry: bool) -> Iterator[Workload]:
    """Records of 4,096 tokens, where nothing is padded; then mixed lengths."""
    long = 96 if dry else 4096
    setup = Setup(
        SHAPES["tiny"] if dry else SHAPES["8b"], slices=1, batch_records=4, max_tokens=long, micro_batch_tokens=long
    )
    # The last token of a record is predicted and never fed, so a record fills a pack to one token.
    yield Workload("full packs", setup, texts([long - 2] * 4 * STEPS), 1)
    records = 4 if dry else 32
    # With eight of them at once, the longest still leave room for logits of Llama-3's vocabulary on 80 GB.
    yield Workload(
        "mixed lengths",
        replace(setup, batch_records=records, max_tokens=512),
        like_alpaca(records * STEPS),
        2 if dry else 8,
    )
