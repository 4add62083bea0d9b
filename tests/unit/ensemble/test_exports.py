"""Exports in plain PEFT: the numbers of the ensemble, without rsLoRA's flag; the merged one is the mean."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from s3t_ray.config.load import load_config
from s3t_ray.ensemble.peft_export import export
from s3t_ray.errors import ConfigError
from s3t_ray.run.run import Run
from s3t_ray.train.adapters import export_adapter, export_merged_adapter
from tests.unit.ensemble.conftest import SHARDS, Published
from tests.unit.ensemble.published import merged

IDS = [5, 17, 250, 33]


def loaded(published: Published, folder: Path) -> torch.nn.Module:
    base = AutoModelForCausalLM.from_pretrained(published.base)
    model: torch.nn.Module = PeftModel.from_pretrained(base, folder).merge_and_unload().eval()
    return model


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    out: torch.Tensor = model(input_ids=torch.tensor([IDS])).logits[0]
    return out


def test_the_mean_of_the_exports_logits_is_what_the_ensemble_says(published: Published, tmp_path: Path) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(3, 2))
    folders = [
        export_adapter(published.store, published.chain(shard, depth), tmp_path / str(shard))
        for shard, depth in enumerate((3, 2))
    ]
    for folder in folders:
        told = json.loads((folder / "adapter_config.json").read_text())
        assert told["use_rslora"] is False and told["lora_alpha"] == 16, "8 * sqrt(4)"
    offline = torch.stack([logits(loaded(published, folder)) for folder in folders]).mean(0)
    assert torch.allclose(ensemble.logits(IDS), offline, atol=1e-4)


@pytest.mark.parametrize("depths", [(3, 3), (3, 1)])
def test_the_merged_export_adds_the_mean_of_what_the_shards_add(
    published: Published, tmp_path: Path, depths: tuple[int, int]
) -> None:
    chains = [published.chain(shard, depth) for shard, depth in enumerate(depths)]
    model = loaded(published, export_merged_adapter(published.store, chains, tmp_path / "merged"))
    base = dict(AutoModelForCausalLM.from_pretrained(published.base).named_parameters())
    shards = [dict(merged(published.base, chain).named_parameters()) for chain in chains]
    changed = 0
    for name, weight in model.named_parameters():
        mean = sum(shard[name] - base[name] for shard in shards) / SHARDS
        assert torch.allclose(weight - base[name], mean, atol=1e-6), name
        changed += bool((weight != base[name]).any())
    assert changed == 4 * 2 * max(depths)


def test_models_with_a_task_head_are_exported_one_by_one(tmp_path: Path) -> None:
    run = SimpleNamespace(row=SimpleNamespace(shards=2), config=load_config("glue"))
    with pytest.raises(ConfigError, match="cannot be merged") as caught:
        export(cast(Run, run), None, tmp_path / "out")
    assert "--shard" in caught.value.fix and not (tmp_path / "out").exists()
