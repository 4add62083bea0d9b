"""Approximate unlearning, for comparison: gradient ascent, gradient difference and NPO on one LoRA adapter.

In: a base, a PEFT folder, records to forget and to keep. Out: a new PEFT folder. Gradient ascent raises the loss of the
forget set. Gradient difference also lowers the loss of the retain set. NPO (arXiv 2404.05868) is ascent that weakens as
the model's answers become less likely: -2 / beta x log sigmoid(-beta log(p / p0)), where p0 is the initial model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchlib.small_base import padded
from s3t_ray.config.schema import Task
from s3t_ray.data.readers.inputs import Example, encode

Method = Literal["gradient ascent", "gradient difference", "NPO"]
BETA = 0.1
BATCH = 8


def unlearn(
    method: Method,
    base: Path,
    adapter: Path,
    task: Task,
    forget: Sequence[str],
    retain: Sequence[str],
    out: Path,
    lr: float,
    epochs: int,
) -> Path:
    """Write the adapter after `epochs` passes over the forget set."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, adapter, is_trainable=True)
    gone, kept = ([encode(content, tokenizer, task) for content in own] for own in (forget, retain))
    with torch.no_grad():
        before = [summed_losses(model, gone[at : at + BATCH])[0] for at in range(0, len(gone), BATCH)]
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=lr)
    for epoch in range(epochs):
        for number, at in enumerate(range(0, len(gone), BATCH)):
            sums, tokens = summed_losses(model, gone[at : at + BATCH])
            loss = _forgetting(method, sums, tokens, before[number])
            if method == "gradient difference":
                start = (epoch * len(gone) + at) % len(kept)
                own, counted = summed_losses(model, kept[start : start + BATCH])
                loss = loss + own.sum() / counted.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(out)
    return out


def _forgetting(method: Method, sums_N: Tensor, tokens_N: Tensor, before_N: Tensor) -> Tensor:
    if method == "NPO":
        # log(p / p0) of a complete answer is the old loss minus the new one.
        return -2 / BETA * torch.nn.functional.logsigmoid(-BETA * (before_N - sums_N)).mean()
    return -sums_N.sum() / tokens_N.sum()


def summed_losses(model: Any, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Per record: summed negative log-likelihood (nats) of its labelled tokens, and their number."""
    ids, labels = padded([each.input_ids for each in examples], [each.labels for each in examples])
    logits = model(input_ids=ids).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    return each.sum(1), (labels[:, 1:] != -100).sum(1)
