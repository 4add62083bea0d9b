"""The memory plan's figure for what a layer keeps for its backward pass, against what autograd keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.memory import EngineSetting, layer_activation_bytes
from s3t_ray.plan.work import describe_work
from s3t_ray.train.examples import make_item
from s3t_ray.train.forward import Forward, pack_items
from s3t_ray.train.grouped import GroupedModel
from s3t_ray.train.loading.base import load_base, precision_dtype
from s3t_ray.train.seeds import StagePlace

CPU = torch.device("cpu")
RECORDS, TOKENS = 4, 16  # records per pack, tokens per record


def kept_bytes(folder: Path, shape: ModelShape, config: Config, depth: int) -> int:
    """Bytes of all tensors that one micro-batch at this depth keeps for its backward pass, weights aside."""
    model = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
    )
    LlamaForCausalLM(model).save_pretrained(folder)
    base = load_base(config, folder, CPU)
    grouped = GroupedModel(base, config)
    above = grouped.begin(StagePlace(0, 0, (0,)), {}) if depth == 2 else {}
    grouped.begin(StagePlace(0, 0, tuple(range(depth))), {name: each.detach().clone() for name, each in above.items()})
    forward = Forward(base, precision_dtype(config))
    items = [make_item(str(row), 0, row, [5] * TOKENS, [7] * TOKENS) for row in range(RECORDS)]
    states = torch.randn(RECORDS * TOKENS, shape.hidden).to(precision_dtype(config))
    weights = {each.untyped_storage().data_ptr() for each in base.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        grouped.cut(grouped.lowest_layer(depth)),
    ):
        loss = forward.loss(pack_items(items, states, CPU))
        found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del loss
    return found


def config_of(folder: Path, layers_per_group: int, **engine: Any) -> Config:
    config = Config(
        name="lab",
        shards=1,
        slices=2,
        budget=1,
        model={"path": str(folder)},
        data={"path": "unused"},
        lora={"layers_per_group": layers_per_group, "rank": 4},
        storage={"uri": "unused"},
    )
    # The config refuses bfloat16 on CPU for its speed; what autograd keeps can be counted all the same.
    return config.model_copy(update={"engine": config.engine.model_copy(update=engine)})


@pytest.mark.parametrize(
    ("precision", "quantize"), [("float32", "none"), ("bfloat16", "none"), ("float32", "8bit"), ("bfloat16", "4bit")]
)
@pytest.mark.parametrize(
    "shape",
    [
        ModelShape(layers=4, hidden=128, intermediate=640, heads=8, kv_heads=2, vocabulary=300),
        ModelShape(layers=4, hidden=256, intermediate=512, heads=4, kv_heads=2, vocabulary=300),
    ],
)
def test_a_layer_keeps_what_the_plan_says(tmp_path: Path, shape: ModelShape, precision: str, quantize: str) -> None:
    """Two models that differ only in their number of layers differ by what those layers keep."""
    found: dict[int, list[float]] = {}
    for depth in (1, 2):
        sizes = []
        for layers in (4, 6):
            folder = tmp_path / f"{depth}-{layers}"
            config = config_of(folder, layers // 2, precision=precision)
            config = config.model_copy(update={"model": config.model.model_copy(update={"quantize": quantize})})
            sizes.append(kept_bytes(folder, replace_layers(shape, layers), config, depth))
        found[depth] = [(sizes[1] - sizes[0]) / (RECORDS * TOKENS)]
    config = config_of(tmp_path, 2)
    work = describe_work(config, 10, float(TOKENS), 1.0, shape)
    setting = EngineSetting(4 if precision == "float32" else 2, quantize, 0, 1, RECORDS * TOKENS, False, on_gpu=False)
    trained, passed = (layer_activation_bytes(work, setting, trains) for trains in (True, False))
    assert found[1][0] == trained
    assert found[2][0] - found[1][0] == passed


def replace_layers(shape: ModelShape, layers: int) -> ModelShape:
    return shape.model_copy(update={"layers": layers})


def test_an_adapter_apart_from_its_layer_keeps_more() -> None:
    shape = ModelShape(layers=4, hidden=128, intermediate=640, heads=8, kv_heads=2, vocabulary=300)
    work = describe_work(config_of(Path("unused"), 2), 10, 16.0, 1.0, shape)
    plain = EngineSetting(2, "none", 0, 1, 64, False)
    assert layer_activation_bytes(work, replace(plain, zero_stage=3), True) > layer_activation_bytes(work, plain, True)
