"""Encoders as they are published: with a stored buffer of positions, without a prefix, or with TensorFlow's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from s3t_ray.config.base_model import find_base
from s3t_ray.errors import ConfigError
from s3t_ray.train.loading.check_base import check_base_model
from s3t_ray.train.loading.load_model import load_model
from tests.tiny import tiny_bert
from tests.unit.train.base_config import config_for

WEIGHTS = "model.safetensors"
POSITIONS = torch.arange(512).unsqueeze(0)
TASK = {"task": {"kind": "classification", "labels": ["a", "b"]}, "engine": {"hidden_states": "recompute"}}


def with_positions(weights: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    return {f"{family}.{name}": each for name, each in weights.items()} | {
        f"{family}.embeddings.position_ids": POSITIONS
    }


def bare_with_positions(weights: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    return {**weights, "embeddings.position_ids": POSITIONS}


def tensorflow_names(weights: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    return {
        f"{family}.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": w
        for name, w in weights.items()
    }


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("published", [with_positions, bare_with_positions, tensorflow_names])
def test_a_published_encoder_loads_with_all_its_weights(
    family: str, published: Callable[[dict[str, Tensor], str], dict[str, Tensor]], tmp_path: Path
) -> None:
    folder = tiny_bert(tmp_path / "encoder", layers=2, family=family)
    config, cpu = config_for(folder, **TASK), torch.device("cpu")
    saved = load_model(config, folder, cpu, "sdpa").model.state_dict()
    bare = {name.removeprefix(f"{family}."): each for name, each in load_file(folder / WEIGHTS).items()}
    save_file(published(bare, family), folder / WEIGHTS)
    check_base_model(config, find_base(config.model))
    loaded = load_model(config, folder, cpu, "sdpa").model.state_dict()
    assert any(each.abs().sum() > 0 for name, each in saved.items() if name.endswith("LayerNorm.weight"))
    body = [name for name in saved if not name.startswith("classifier.")]  # each stage trains its own head
    assert [name for name in body if not torch.equal(saved[name], loaded[name])] == []


def test_an_integer_weight_beside_the_positions_is_still_refused(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "encoder", layers=2)
    weights = load_file(folder / WEIGHTS)
    odd = next(name for name in weights if name.endswith("word_embeddings.weight"))
    save_file({**weights, odd: weights[odd].to(torch.int8), "embeddings.position_ids": POSITIONS}, folder / WEIGHTS)
    config = config_for(folder, **TASK)
    with pytest.raises(ConfigError, match=r"word_embeddings\.weight is stored as I8"):
        check_base_model(config, find_base(config.model))
