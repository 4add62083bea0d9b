"""RMSNorm with a frozen weight: the same function as Hugging Face's, with fewer passes over memory.

Hugging Face's version takes five operations forward and about ten backward, each a pass over all tokens, and autograd
keeps three token-sized tensors. On a CPU, this module implements the backward pass by hand and keeps only the input
and one number per token (benchmarks/RESULTS.md has the timings). For GPUs, torch has a fused kernel whose results
differ in the last bits: `engine.norms: fused`.
Legend: D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm")
"""Classes that compute exactly weight * x / sqrt(mean(x^2) + eps)."""


class _RmsNorm(torch.autograd.Function):
    """Differentiable in x only. float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean_square.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, inverse)
        return (x * inverse).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        x, weight_D, inverse = ctx.saved_tensors
        gradient = grad_outputs[0] * weight_D
        along = torch.linalg.vecdot(gradient, x).unsqueeze(-1).mul_(inverse**3).div_(-x.shape[-1])
        return gradient.mul_(inverse).addcmul_(x, along), None, None


class FrozenRmsNorm(nn.Module):
    """Drop-in replacement for Hugging Face's module, with the same weight."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = _RmsNorm.apply(x, self.weight, self.variance_epsilon)
        return normed


class FusedRmsNorm(nn.Module):
    """The same function with torch's kernel, fused on GPUs. It multiplies by the weight before rounding."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        # The kernel computes in float32 internally; autocast would also cast its input and output tensors.
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)


def replace_norms(model: nn.Module, by: type[FrozenRmsNorm] | type[FusedRmsNorm]) -> None:
    """Replace each RMSNorm in `model` by an instance of `by`. Parameter names do not change."""
    found = [(path, module) for path, module in model.named_modules() if type(module).__name__ in CLASSES]
    for path, module in found:
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, by(module.weight, module.variance_epsilon))
