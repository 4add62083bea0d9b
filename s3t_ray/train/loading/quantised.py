"""A quantised base: linear layers that keep 8 or 4 bits a weight, and compute with the numbers that those stand for.

bitsandbytes makes and unpacks the weights; the products are plain ones on unpacked weights, one layer's at a time.
Its own products are not used: those for 8 bits round the inputs too, by what else is in the pack, so a record's result
would depend on its neighbours; those for 4 bits change, on a CPU with AVX512-BF16, to a kernel without a gradient as
soon as a layer has once been run without one. Unpacked for each product, a record's result is its own, and gradients
are those of the weights in use.

In: a model as transformers loads it with bitsandbytes. Out: the same model, whose quantised layers say so. Legend: T
tokens, I inputs, O outputs.
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
        """`layer`: of bitsandbytes. `dtype`: of the unpacked weight, in which products are computed."""
        self._layer = layer
        self.dtype = dtype
        self.shape = torch.Size((layer.out_features, layer.in_features))

    def unpacked(self) -> Tensor:
        """The weight as numbers; a new tensor, which nobody keeps."""
        weight = self._layer.weight
        if type(weight).__name__ == "Params4bit":
            from bitsandbytes.functional import dequantize_4bit

            return dequantize_4bit(weight.data, weight.quant_state).to(self.dtype)
        scale_O_1 = (weight.SCB / 127.0).unsqueeze(1)
        out = torch.empty(self.shape, dtype=self.dtype, device=weight.device)
        return torch.mul(weight.CB, scale_O_1, out=out)


class _Product(torch.autograd.Function):
    """y = x W^T + b, differentiable in x; keeps neither x nor the unpacked weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantisedWeight, bias: Tensor | None) -> Tensor:
        ctx.weight, ctx.kind = weight, x.dtype
        return nn.functional.linear(x.to(weight.dtype), weight.unpacked(), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient = torch.matmul(grad_outputs[0].to(ctx.weight.dtype), ctx.weight.unpacked())
        return gradient.to(ctx.kind), None, None


def frozen_weight(layer: nn.Module) -> Tensor | QuantisedWeight:
    """The weight of a linear layer, quantised or not."""
    found: Tensor | QuantisedWeight = layer.quantised if hasattr(layer, "quantised") else layer.weight
    return found


def compute_unpacked(model: nn.Module, dtype: torch.dtype) -> None:
    """Have all quantised layers of `model` compute with unpacked weights of this type. Before they first run."""
    for layer in model.modules():
        if type(getattr(layer, "weight", None)).__name__ in _KINDS:
            weight = QuantisedWeight(layer, dtype)
            vars(layer)["quantised"] = weight
            vars(layer)["forward"] = partial(_forward, weight, layer)


def _forward(weight: QuantisedWeight, layer: Any, x: Tensor) -> Tensor:
    product: Tensor = _Product.apply(x, weight, layer.bias)
    return product


def quantisation(config: Config, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a base that is quantised as `model.quantize` says; none for one that is not.

    Raises ConfigError: bitsandbytes is not installed.
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
