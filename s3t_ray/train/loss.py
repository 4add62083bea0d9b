"""Cross-entropy through a frozen vocabulary head, in chunks, so that [tokens x vocabulary] is never materialized.

In: hidden states of the labelled positions. Out: the summed loss, differentiable in the hidden states only.
Positions without a label are skipped, because the vocabulary head dominates the cost of small models.
Legend: S labelled positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CHUNK_ELEMENTS = 1 << 24  # per [rows x V] block of logits: 64 MiB in float32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the loss and its gradient together, block by block. Each block of logits exists only once."""

    @staticmethod
    def forward(ctx: Any, hidden_S_D: Tensor, weight_V_D: Tensor, bias_V: Tensor | None, targets_S: Tensor) -> Tensor:
        positions, vocabulary = hidden_S_D.shape[0], weight_V_D.shape[0]
        rows = min(positions, max(1, _CHUNK_ELEMENTS // vocabulary))
        total = hidden_S_D.new_zeros((), dtype=torch.float32)
        gradient_S_D = torch.empty_like(hidden_S_D)
        products = hidden_S_D.new_empty(rows, vocabulary)  # reused by all blocks: page faults cost more than the math
        for start in range(0, positions, rows):
            block = slice(start, min(start + rows, positions))
            targets = targets_S[block].unsqueeze(1)
            scores = torch.mm(hidden_S_D[block], weight_V_D.t(), out=products[: targets.shape[0]])
            if bias_V is not None:
                scores += bias_V
            scores = scores.float()
            scores -= scores.amax(dim=1, keepdim=True)
            right = scores.gather(1, targets)
            norm = scores.exp_().sum(dim=1, keepdim=True)
            total += (norm.log() - right).sum()
            # The gradient is (softmax - 1 at the target) x weight. Divide by the norm after the product, which is
            # smaller.
            scores.scatter_(1, targets, scores.gather(1, targets) - norm)
            torch.mm(scores.to(weight_V_D.dtype), weight_V_D, out=gradient_S_D[block])
            gradient_S_D[block] /= norm
        ctx.save_for_backward(gradient_S_D)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_S_D,) = ctx.saved_tensors
        return gradient_S_D * grad_outputs[0].to(gradient_S_D.dtype), None, None, None


def summed_cross_entropy(hidden_S_D: Tensor, head: nn.Linear, targets_S: Tensor) -> Tensor:
    """The cross-entropy of `head(hidden)` against the targets, summed over the S positions, in float32.

    The head is frozen and gets no gradient. The forward pass also computes the gradient of the hidden states, because
    nothing else uses the logits.
    """
    return _ChunkedCrossEntropy.apply(hidden_S_D.to(head.weight.dtype), head.weight, head.bias, targets_S)
