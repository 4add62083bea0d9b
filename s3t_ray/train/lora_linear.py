"""A frozen linear layer with a LoRA adapter as one operation: y = x W^T + b + s (x A^T) B^T.

PEFT computes the two products separately and adds them, which costs two more passes over the output, and two more in
the backward pass. This module accumulates the adapter's product in place, and the gradients too
(benchmarks/RESULTS.md has the timings).

In: PEFT's layers. Their parameters stay in place, so all other code sees plain PEFT. A quantized weight is unpacked
for each product and then discarded. Never used with ZeRO 3, which gathers weights when PEFT's submodules are called.
Legend: T tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from s3t_ray.train.loading.quantised import QuantisedWeight, frozen_weight
from s3t_ray.train.peft_layers import LoraLayer

ADAPTER = "default"  # PEFT's default adapter name, the only one in exports


class _LoraLinear(torch.autograd.Function):
    """Differentiable in x, in `dropped` (x after dropout; None: no dropout), in A and in B. W and b are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        frozen_O_I: Tensor | QuantisedWeight,
        bias_O: Tensor | None,
        a_R_I: Tensor,
        b_O_R: Tensor,
        scale: float,
    ) -> Tensor:
        kind = frozen_O_I.dtype
        weight_O_I = frozen_O_I if isinstance(frozen_O_I, Tensor) else frozen_O_I.unpacked()
        x_T_I = x.reshape(-1, x.shape[-1]).to(kind)
        seen_T_I = x_T_I if dropped is None else dropped.reshape(-1, x.shape[-1]).to(kind)
        a, b = a_R_I.to(kind), b_O_R.to(kind)
        low_T_R = torch.mm(seen_T_I, a.t())
        y_T_O = torch.mm(x_T_I, weight_O_I.t()) if bias_O is None else torch.addmm(bias_O, x_T_I, weight_O_I.t())
        y_T_O.addmm_(low_T_R, b.t(), alpha=scale)
        # Keep what only the adapter's gradient needs just if the adapter is trainable.
        trains_a, trains_b = a_R_I.requires_grad, b_O_R.requires_grad
        kept = weight_O_I if isinstance(frozen_O_I, Tensor) else None
        ctx.save_for_backward(kept, a_R_I, b_O_R, seen_T_I if trains_a else None, low_T_R if trains_b else None)
        ctx.packed = frozen_O_I if kept is None else None
        ctx.scale, ctx.apart, ctx.shape, ctx.kind = scale, dropped is not None, x.shape, x.dtype
        return y_T_O.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        weight_O_I, a_R_I, b_O_R, seen_T_I, low_T_R = ctx.saved_tensors
        if ctx.packed is not None:
            weight_O_I = ctx.packed.unpacked()
        kind = weight_O_I.dtype
        needs_x, needs_dropped = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        g_T_O = grad_outputs[0].reshape(-1, weight_O_I.shape[0]).to(kind)
        low_gradient_T_R = torch.mm(g_T_O, b_O_R.to(kind)).mul_(ctx.scale)
        of_x = of_dropped = of_a = of_b = None
        if seen_T_I is not None:
            of_a = torch.mm(low_gradient_T_R.t(), seen_T_I).to(a_R_I.dtype)
        if low_T_R is not None:
            # In this order, the product reads the wide gradient sequentially.
            of_b = torch.mm(low_T_R.t(), g_T_O).mul_(ctx.scale).t().to(b_O_R.dtype)
        if needs_x:
            of_x = torch.mm(g_T_O, weight_O_I)
            if not ctx.apart:
                of_x.addmm_(low_gradient_T_R, a_R_I.to(kind))
            of_x = of_x.view(ctx.shape).to(ctx.kind)
        if needs_dropped:
            of_dropped = torch.mm(low_gradient_T_R, a_R_I.to(kind)).view(ctx.shape).to(ctx.kind)
        return of_x, of_dropped, None, None, of_a, of_b, None


def _forward(layer: Any, x: Tensor) -> Tensor:
    """The forward pass of a PEFT layer whose base is a plain linear layer."""
    base: nn.Linear = layer.base_layer
    if layer.disable_adapters:
        return base(x)
    dropout = layer.lora_dropout[ADAPTER]
    dropped = None if isinstance(dropout, nn.Identity) or not dropout.training else dropout(x)
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return _LoraLinear.apply(x, dropped, frozen_weight(base), base.bias, a, b, layer.scaling[ADAPTER])


def as_one_operation(layer: LoraLayer) -> None:
    """Make this PEFT layer compute its output as one operation."""
    layer.forward = partial(_forward, layer)
