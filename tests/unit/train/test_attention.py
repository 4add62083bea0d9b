"""Attention over packed records: the same bits as slices gave, and the same function in one kernel."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from s3t_ray.errors import ConfigError
from s3t_ray.train import attention
from s3t_ray.train.attention import check_flash_attention, packed_sdpa, packed_varlen, register_packed_varlen

SHAPES = [  # heads, heads of keys, head size, tokens of each record
    (9, 3, 64, (180, 1, 300, 7)),
    (4, 2, 8, (3, 1, 1, 50)),
    (4, 4, 128, (64,) * 20),
    (8, 2, 16, (33,)),
]


def by_slices(module: Any, query: Tensor, key: Tensor, value: Tensor, segments: Any, **kwargs: Any) -> Tensor:
    """What `packed_sdpa` was before: the bits that published stages rest on."""
    parts = [
        sdpa_attention_forward(
            module, query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], None, **kwargs
        )[0]
        for start, end in segments
    ]
    return torch.cat(parts, dim=1)


class Case:
    """Inputs of one call, as a model makes them: [1, T, heads, head size], transposed."""

    def __init__(self, shape: tuple[int, int, int, tuple[int, ...]], kind: torch.dtype) -> None:
        heads, kv_heads, size, lengths = shape
        generator = torch.Generator().manual_seed(heads * size)
        tokens = sum(lengths)
        ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
        self.segments = tuple((end - length, end) for end, length in zip(ends, lengths, strict=True))
        self.module: Any = SimpleNamespace(num_key_value_groups=heads // kv_heads, is_causal=True)
        self.scaling = size**-0.5
        self._inputs = [torch.randn(1, tokens, each, size, generator=generator) for each in (heads, kv_heads, kv_heads)]
        self._inputs = [each.to(kind) for each in self._inputs]
        self._gradient = torch.randn(1, tokens, heads, size, generator=generator).to(kind)

    def run(self, function: Any) -> list[Tensor]:
        """The result and the gradients of query, key and value."""
        leaves = [each.clone().requires_grad_() for each in self._inputs]
        out = function(self.module, *(leaf.transpose(1, 2) for leaf in leaves), self.segments, scaling=self.scaling)
        out.backward(self._gradient)
        return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def bits(tensor: Tensor) -> Tensor:
    """Also the sign of a zero counts."""
    return tensor.contiguous().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_sdpa_gives_the_bits_of_slices(shape: Any, kind: torch.dtype) -> None:
    case = Case(shape, kind)
    now = case.run(lambda module, q, k, v, segments, **kw: packed_sdpa(module, q, k, v, None, segments, **kw)[0])
    before = case.run(by_slices)
    assert len(now) == 4
    for ours, theirs in zip(now, before, strict=True):
        assert torch.equal(bits(ours), bits(theirs))


def stand_in(query: Tensor, key: Tensor, value: Tensor, *bounds: Any, scale: float, **options: Any) -> Tensor:
    """torch's kernel, which runs on GPUs alone, written out: [T, heads, head size], records between the bounds."""
    starts, same_starts, longest, same_longest = bounds
    assert torch.equal(starts, same_starts) and starts.dtype == torch.int32
    assert longest == same_longest == int(starts.diff().max())
    assert options.pop("window_size") == (-1, 0)
    assert options in ({}, {"enable_gqa": True})
    shared = query.shape[1] // key.shape[1]
    parts = []
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        q, k, v = (each[start:end].transpose(0, 1) for each in (query, key, value))
        scores = q @ k.repeat_interleave(shared, 0).transpose(1, 2) * scale
        scores = scores.masked_fill(torch.ones_like(scores[0], dtype=torch.bool).triu(1), -torch.inf)
        parts.append((scores.softmax(-1) @ v.repeat_interleave(shared, 0)).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_varlen_is_the_same_function(monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    monkeypatch.setattr(attention, "varlen_attn", stand_in)
    case = Case(shape, torch.float32)
    ours = case.run(lambda module, q, k, v, segments, **kw: packed_varlen(module, q, k, v, None, segments, **kw)[0])
    theirs = case.run(by_slices)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_row_without_segments_is_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", stand_in)
    case = Case((4, 2, 8, (21,)), torch.float32)
    named = case.run(lambda module, q, k, v, segments, **kw: packed_varlen(module, q, k, v, None, segments, **kw)[0])
    bare = case.run(lambda module, q, k, v, segments, **kw: packed_varlen(module, q, k, v, None, **kw)[0])
    assert all(torch.equal(one, other) for one, other in zip(named, bare, strict=True))


@pytest.mark.parametrize("kv_heads", [8, 2])
def test_the_kernel_of_this_torch_takes_these_arguments(kv_heads: int) -> None:
    """Forward and backward through torch's own signatures and shapes, on tensors without storage."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k, v = (
            torch.empty(1, 96, each, 16, dtype=torch.bfloat16, requires_grad=True) for each in (8, kv_heads, kv_heads)
        )
        module: Any = SimpleNamespace()
        rows = [each.transpose(1, 2) for each in (q, k, v)]
        states, _ = packed_varlen(module, rows[0], rows[1], rows[2], None, ((0, 64), (64, 96)), scaling=0.25)
        assert states.shape == (1, 96, 8, 16)
        states.sum().backward()
        attention._bounds.cache_clear()  # else it would hand a tensor without storage to other tests
        assert [each.grad is not None and each.grad.shape == each.shape for each in (q, k, v)] == [True] * 3


def test_varlen_is_refused_without_a_gpu() -> None:
    with pytest.raises(ConfigError, match="needs a GPU") as caught:
        register_packed_varlen(torch.device("cpu"))
    assert "sdpa" in caught.value.fix


@pytest.mark.parametrize(("found", "words"), [(None, "not installed"), ("2.3.6", "flash-attn 2.3.6"), ("2.8.3", None)])
def test_flash_attention_must_be_able_to_repeat_bits(
    monkeypatch: pytest.MonkeyPatch, found: str | None, words: str | None
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(attention, "version", version)
    if words is None:
        check_flash_attention()
        return
    with pytest.raises(ConfigError, match=words):
        check_flash_attention()
