"""A base that is split while loading has the same weights as one loaded completely."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from s3t_ray.train.engine import start_communication
from s3t_ray.train.loading.zero3_load import split_while_loading
from s3t_ray.train.ranks import join
from s3t_ray.train.zero3_gather import whole
from tests.tiny import tiny_llama


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_split_and_whole_hold_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tiny_llama(tmp_path, layers=2)
    join(0, 1, None, 0)
    start_communication()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with split_while_loading(dtype):
        split = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    assert all(hasattr(parameter, "ds_id") and not parameter.numel() for parameter in split.parameters())
    assert not any(hasattr(parameter, "ds_id") for parameter in plain.parameters())
    with whole(list(split.parameters())):
        found = {name: value.clone() for name, value in split.named_parameters()}
    for name, value in plain.named_parameters():
        assert found[name].dtype == dtype, name
        assert torch.equal(found[name], value), name
    buffers = dict(split.named_buffers())
    for name, value in plain.named_buffers():
        assert buffers[name].dtype == value.dtype and torch.equal(buffers[name], value), name
    # Afterwards transformers loads as ever.
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    assert not any(hasattr(parameter, "ds_id") for parameter in again.parameters())
