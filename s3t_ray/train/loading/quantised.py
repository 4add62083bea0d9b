"""A quantized base: linear layers that store 8 or 4 bits per weight and compute with the dequantized values.

bitsandbytes packs and unpacks the weights. Each product is a plain one on unpacked weights, one layer at a time. The
products of bitsandbytes are not used: the 8-bit ones also round the inputs, depending on the other records in the
pack; the 4-bit ones, on a CPU with AVX512-BF16, switch to a kernel without a gradient once a layer has run without
one. With unpacked weights, a record's result does not depend on other records, and the gradients match the weights in
use.

In: a model that transformers loaded with bitsandbytes. Out: the same model, with the attribute `quantised` on its
quantized layers.
Legend: I inputs, O outputs.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError

_KINDS = ("Int8Params", "Params4bit")


class QuantisedWeight:
    """The frozen weight [O x I] of one layer."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        """`layer`: a bitsandbytes layer. `dtype`: the type of the unpacked weight and of the computation."""
        self._layer = layer
        self.dtype = dtype
        self.shape = torch.Size((layer.out_features, layer.in_features))

    def unpacked(self) -> Tensor:
        """The unpacked weight [O x I], as a new tensor that is not cached."""
        weight = self._layer.weight
        if type(weight).__name__ == "Params4bit":
            from bitsandbytes.functional import dequantize_4bit

            return dequantize_4bit(weight.data, weight.quant_state).to(self.dtype)
        scale_O_1 = (weight.SCB / 127.0).unsqueeze(1)
        out = torch.empty(self.shape, dtype=self.dtype, device=weight.device)
        return torch.mul(weight.CB, scale_O_1, out=out)


class _Product(torch.autograd.Function):
    """y = x W^T + b, differentiable in x. Saves neither x nor the unpacked weight for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantisedWeight, bias: Tensor | None) -> Tensor:
        ctx.weight, ctx.kind = weight, x.dtype
        return nn.functional.linear(x.to(weight.dtype), weight.unpacked(), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient = torch.matmul(grad_outputs[0].to(ctx.weight.dtype), ctx.weight.unpacked())
        return gradient.to(ctx.kind), None, None


def frozen_weight(layer: nn.Module) -> Tensor | QuantisedWeight:
    """The weight of a linear layer, quantized or not."""
    found: Tensor | QuantisedWeight = layer.quantised if hasattr(layer, "quantised") else layer.weight
    return found


def compute_unpacked(model: nn.Module, dtype: torch.dtype) -> None:
    """Make all quantized layers of `model` compute with unpacked weights of type `dtype`. Call it before they run."""
    for layer in model.modules():
        if type(getattr(layer, "weight", None)).__name__ in _KINDS:
            weight = QuantisedWeight(layer, dtype)
            vars(layer)["quantised"] = weight
            vars(layer)["forward"] = partial(_forward, weight, layer)


def _forward(weight: QuantisedWeight, layer: Any, x: Tensor) -> Tensor:
    product: Tensor = _Product.apply(x, weight, layer.bias)
    return product


def quantisation(config: Config, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The `from_pretrained` arguments that quantize the base according to `model.quantize`; empty for none.

    Raises ConfigError if bitsandbytes is needed and not installed.
    """
    if config.model.quantize == "none":
        return {}
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantize is {config.model.quantize} and the package bitsandbytes is not installed",
            "install it on every node (pip install 's3t-ray[quantize]'), or set model.quantize to none",
        )
    from transformers import BitsAndBytesConfig

    bits = BitsAndBytesConfig(
        load_in_8bit=config.model.quantize == "8bit",
        load_in_4bit=config.model.quantize == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": bits, "device_map": {"": device}}
