"""The workload of the engine and of Hugging Face's Trainer at Llama-3-8B's shape: same base, records and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchlib.random_base import SHAPES

from gpu.stage_lab import Setup, like_alpaca, texts

STEPS = 5


@dataclass(frozen=True)
class Workload:
    """Records of one kind, and their number per forward pass of Hugging Face's Trainer."""

    name: str
    setup: Setup
    contents: list[str]
    device_batch: int


def workloads(dry: bool) -> Iterator[Workload]:
    """Records of 4,096 tokens, without padding; then mixed lengths."""
    long = 96 if dry else 4096
    setup = Setup(
        SHAPES["tiny"] if dry else SHAPES["8b"], slices=1, batch_records=4, max_tokens=long, micro_batch_tokens=long
    )
    # The last token of a record is predicted but not fed, so a record fills a pack up to one token.
    yield Workload("full packs", setup, texts([long - 2] * 4 * STEPS), 1)
    records = 4 if dry else 32
    # Eight at a time: even the longest leave room for logits of Llama-3's vocabulary on 80 GB.
    yield Workload(
        "mixed lengths",
        replace(setup, batch_records=records, max_tokens=512),
        like_alpaca(records * STEPS),
        2 if dry else 8,
    )
