"""LoRA layers and norms computed as one operation, against PEFT's and Hugging Face's own."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from s3t_ray.train.frozen_norm import FrozenRmsNorm, FusedRmsNorm, replace_norms
from s3t_ray.train.lora_linear import ADAPTER, as_one_operation


def adapted(bias: bool, dropout: float) -> tuple[LoraLayer, LoraLayer]:
    """The same layer twice, with an adapter that changes its output: ours and PEFT's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20, bias=bias))
    settings = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["0"], init_lora_weights=False)
    inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    layer = model[0]
    layer.base_layer.requires_grad_(False)
    theirs = copy.deepcopy(layer)
    as_one_operation(layer)
    return layer, theirs


def results(layer: LoraLayer, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients of input, A and B."""
    torch.manual_seed(1)  # of the dropout
    x = x.clone().requires_grad_()
    out = layer(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, layer.lora_A[ADAPTER].weight.grad, layer.lora_B[ADAPTER].weight.grad]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_lora_layer_is_that_of_peft(bias: bool, dropout: float) -> None:
    ours, theirs = adapted(bias, dropout)
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(2))
    for mine, other in zip(results(ours, x), results(theirs, x), strict=True):
        assert mine.shape == other.shape and torch.allclose(mine, other, atol=1e-5)


def test_without_an_adapter_it_is_the_linear_layer() -> None:
    ours, theirs = adapted(True, 0.0)
    x = torch.randn(3, 12)
    ours.enable_adapters(False)
    assert torch.equal(ours(x), theirs.base_layer(x))
    ours.enable_adapters(True)
    assert not torch.allclose(ours(x), theirs.base_layer(x))


def test_a_frozen_adapter_passes_gradients_on_and_gets_none() -> None:
    ours, theirs = adapted(False, 0.0)
    for layer in (ours, theirs):
        layer.lora_A[ADAPTER].weight.requires_grad_(False)
        layer.lora_B[ADAPTER].weight.requires_grad_(False)
    x = torch.randn(5, 12)
    mine, other = results(ours, x), results(theirs, x)
    assert mine[2] is None and mine[3] is None
    assert torch.allclose(mine[1], other[1], atol=1e-6)


def test_under_autocast_a_bfloat16_base_has_float32_gradients() -> None:
    ours, theirs = adapted(False, 0.0)
    for layer in (ours, theirs):
        layer.base_layer.to(torch.bfloat16)
        layer.cast_input_dtype_enabled = False
    x = torch.randn(5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        mine, other = results(ours, x.bfloat16()), results(theirs, x.bfloat16())
    assert mine[0].dtype == torch.bfloat16 and mine[2].dtype == mine[3].dtype == torch.float32
    for one, two in zip(mine, other, strict=True):
        assert torch.allclose(one.float(), two.float(), atol=0.1)


@pytest.mark.parametrize("by", [FrozenRmsNorm, FusedRmsNorm])
@pytest.mark.parametrize("kind", [LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm])
def test_a_norm_is_that_of_hugging_face(kind: type[nn.Module], by: type[FrozenRmsNorm] | type[FusedRmsNorm]) -> None:
    theirs = kind(24, eps=1e-4)
    nn.init.uniform_(theirs.weight)
    model = nn.ModuleDict({"inside": nn.ModuleDict({"norm": copy.deepcopy(theirs)})}).requires_grad_(False)
    replace_norms(model, by)
    ours = model["inside"]["norm"]
    assert isinstance(ours, by) and list(dict(model.named_parameters())) == ["inside.norm.weight"]
    found = []
    for norm in (ours, theirs):
        x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = norm(x)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append((out.detach(), x.grad))
    for mine, other in zip(*found, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_a_fused_norm_keeps_bfloat16_under_autocast() -> None:
    theirs = LlamaRMSNorm(64).to(torch.bfloat16)
    nn.init.uniform_(theirs.weight)
    ours = FusedRmsNorm(theirs.weight, theirs.variance_epsilon).requires_grad_(False)
    found = []
    for norm in (ours, theirs):
        x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = norm(x)
        assert out.dtype == torch.bfloat16
        out.float().sum().backward()
        assert x.grad is not None
        found.append((out.detach().float(), x.grad.float()))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0.02, atol=0.02)
