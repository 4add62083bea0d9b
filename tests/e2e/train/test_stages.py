"""Stages really trained, in this process: what they publish, what they leave alone, what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from s3t_ray.errors import ConfigError, TrainError
from s3t_ray.train.adapters import export_adapter, load_chain
from s3t_ray.train.engine import hook_count
from s3t_ray.train.job import StageStopped
from s3t_ray.train.manifest import read_manifest
from tests.e2e.train.lab import Lab, make_lab, put_slice, rows, train, train_chain
from tests.tiny import tiny_llama

TOKENS = torch.tensor([[5, 60, 7, 80, 9, 100, 11, 120, 13, 140]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, list[str]]:
    """A chain of three stages on a model of 40 layers, where `layers.3` is a prefix of ten others."""
    root = tmp_path_factory.mktemp("deep")
    lab = make_lab(root, base=tiny_llama(root / "base", layers=40, hidden=16), lora={"layers_per_group": 12, "rank": 2})
    return lab, train_chain(lab, lab.trainer(), "stage")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def test_a_stage_publishes_exactly_the_layers_of_its_group(deep: tuple[Lab, list[str]]) -> None:
    lab, names = deep
    for depth, name in enumerate(names, start=1):
        layers = {int(key.split(".")[4]) for key in lab.tensors(name)}
        assert layers == set(range(40 - 12 * depth, 52 - 12 * depth))
        per_layer = 2 * 7  # A and B of seven linear modules
        assert len(lab.tensors(name)) == 12 * per_layer
        config = json.loads(lab.store.read_bytes(f"stages/{name}/adapter_config.json"))
        assert len(config["target_modules"]) == 12 * 7


def test_the_merged_chain_is_a_standard_peft_adapter(deep: tuple[Lab, list[str]], tmp_path: Path) -> None:
    lab, names = deep
    trainer = lab.trainer()
    plain = AutoModelForCausalLM.from_pretrained(lab.base)
    before = logits(plain)
    seen = [before]
    for depth in (1, 3):
        trainer._grouped.show(load_chain(lab.store, names[:depth]).tensors)
        ours = logits(trainer._base.model)
        folder = export_adapter(lab.store, names[:depth], tmp_path / str(depth))
        with pytest.warns(None) if False else _no_missing_keys():
            theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lab.base), folder)
        assert torch.allclose(ours, logits(theirs), atol=1e-5)
        assert all(not torch.allclose(ours, other, atol=1e-3) for other in seen), "a depth that changes nothing"
        seen.append(ours)
    trainer._grouped.rest()
    assert torch.allclose(logits(trainer._base.model), before, atol=1e-5)
