"""Cross-entropy through a frozen vocabulary head, in chunks, so that [tokens x vocabulary] never stands whole.

In: hidden states of the labelled positions. Out: the summed loss, differentiable in the hidden states only.
Legend: S labelled positions, D hidden size, V vocabulary. Never touches positions without a label: a
vocabulary-sized head dominates small models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CHUNK_ELEMENTS = 1 << 24  # of one [rows x V] block of logits: 64 MiB in float32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and its gradient together, block by block: each block of logits is made once and thrown away."""

    @staticmethod
    def forward(ctx: Any, hidden_S_D: Tensor, weight_V_D: Tensor, bias_V: Tensor | None, targets_S: Tensor) -> Tensor:
        rows = max(1, _CHUNK_ELEMENTS // weight_V_D.shape[0])
        total = hidden_S_D.new_zeros((), dtype=torch.float32)
        gradient_S_D = torch.empty_like(hidden_S_D)
        for start in range(0, hidden_S_D.shape[0], rows):
            block = slice(start, start + rows)
            targets = targets_S[block].unsqueeze(1)
            scores = nn.functional.linear(hidden_S_D[block], weight_V_D, bias_V).float()
            log_norm = torch.logsumexp(scores, dim=1, keepdim=True)
            total += (log_norm - scores.gather(1, targets)).sum()
            scores.sub_(log_norm).exp_()  # now the softmax: the gradient but for the target's 1
            scores.scatter_add_(1, targets, scores.new_full(targets.shape, -1.0))
            torch.mm(scores.to(weight_V_D.dtype), weight_V_D, out=gradient_S_D[block])
        ctx.save_for_backward(gradient_S_D)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_S_D,) = ctx.saved_tensors
        return gradient_S_D * grad_outputs[0].to(gradient_S_D.dtype), None, None, None


def summed_cross_entropy(hidden_S_D: Tensor, head: nn.Linear, targets_S: Tensor) -> Tensor:
    """Sum over the S positions of the cross-entropy of `head(hidden)` against the targets, in float32.

    The head is frozen: it gets no gradient. The gradient of the hidden states is computed in the forward pass,
    as no other use is made of the logits.
    """
    return _ChunkedCrossEntropy.apply(hidden_S_D.to(head.weight.dtype), head.weight, head.bias, targets_S)
