"""`ensemble: mean`: one model answers, and it is PEFT's model of the merged export."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from s3t_ray.data.readers.inputs import NO_LOSS, Example
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import load_stage
from s3t_ray.ensemble.mean_stage import mean_stage
from s3t_ray.train.adapters import export_merged_adapter
from tests.unit.ensemble.conftest import LAYERS, PER_GROUP, SHARDS, Published

IDS = [5, 17, 250, 33, 8]


def averaging(published: Published) -> Ensemble:
    config = published.config.model_copy(update={"ensemble": "mean"})
    return Ensemble(config, published.base, published.store)


def exported(published: Published, chains: list[tuple[str, ...]], out: Path) -> torch.nn.Module:
    folder = export_merged_adapter(published.store, chains, out)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(published.base), folder).eval()


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    said: torch.Tensor = model(input_ids=torch.tensor([IDS])).logits[0]
    return said


@pytest.mark.parametrize("depths", [(3, 3), (3, 1), (0, 2)])
def test_the_matrices_are_those_of_the_merged_export(
    published: Published, tmp_path: Path, depths: tuple[int, int]
) -> None:
    """To the bit: halves are exact."""
    base = FrozenBase(published.config, published.base)
    chains = [published.chain(shard, depth) for shard, depth in enumerate(depths) if depth]
    stages = {
        name: load_stage(published.store, chain[: at + 1], base) for chain in chains for at, name in enumerate(chain)
    }
    mean = mean_stage(base, stages, chains)
    folder = export_merged_adapter(published.store, chains, tmp_path)
    theirs = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert len(theirs) == 2 * len(mean.deltas) == 2 * 4 * PER_GROUP * max(depths)
    assert mean.lowest == LAYERS - PER_GROUP * max(depths)
    for name, delta in mean.deltas.items():
        assert torch.equal(delta.down.T, theirs[f"base_model.model.{name}.lora_A.weight"])
        assert torch.equal(delta.up.T, theirs[f"base_model.model.{name}.lora_B.weight"])


def test_it_answers_as_the_merged_export_in_peft(published: Published, tmp_path: Path) -> None:
    """Before a deletion, after one, and when one shard is dead."""
    ensemble = averaging(published)
    for version, depths in enumerate([(3, 3), (3, 1), (0, 1)], start=1):
        ensemble.set_live(version, published.chains(*depths))
        chains = [published.chain(shard, depth) for shard, depth in enumerate(depths) if depth]
        expected = logits(exported(published, chains, tmp_path / str(version)))
        torch.testing.assert_close(ensemble.logits(IDS), expected, atol=1e-5, rtol=0)
        assert ensemble.live().depths == depths
        assert set(ensemble.live().stages) == {name for chain in chains for name in chain}
        if len(chains) > 1:
            of_logits = published.ensemble()
            of_logits.set_live(1, published.chains(*depths))
            assert not torch.allclose(of_logits.logits(IDS), expected, atol=1e-2), "one cannot be told from the other"


def test_it_generates_and_is_judged_as_that_model(published: Published, tmp_path: Path) -> None:
    ensemble = averaging(published)
    ensemble.set_live(1, published.chains(3, 2))
    model = exported(published, [published.chain(0, 3), published.chain(1, 2)], tmp_path)
    made = ensemble.generate(IDS, 6)
    with torch.inference_mode():
        theirs = model.generate(torch.tensor([IDS]), max_new_tokens=6, do_sample=False, eos_token_id=-1)
    assert list(made.tokens) == theirs[0, len(IDS) :].tolist()
    record = Example(tuple(IDS), (NO_LOSS, *IDS[1:]))
    chances = torch.log_softmax(logits(model), -1)
    expected = -sum(float(chances[at, token]) for at, token in enumerate(IDS[1:])) / (len(IDS) - 1)
    report = ensemble.held_out_losses([record])
    assert report.current.loss == pytest.approx(expected, abs=1e-5)
    assert report.by_depth[3].loss == pytest.approx(expected, abs=1e-5), "the depths that are there"
    assert len({round(score.loss, 4) for score in report.by_depth.values()}) == 4


def test_a_pruned_stage_leaves_the_mean(published: Published) -> None:
    ensemble, other = averaging(published), averaging(published)
    ensemble.set_live(1, published.chains(3, 3))
    ensemble.prune(2, set(published.chain(0, 1)) | set(published.chain(1, 3)))
    other.set_live(1, published.chains(1, 3))
    assert torch.equal(ensemble.logits(IDS), other.logits(IDS))


def test_all_dead_means_the_base_answers(published: Published) -> None:
    ensemble = averaging(published)
    ensemble.set_live(1, published.chains(*[1] * SHARDS))
    ensemble.set_live(2, {})
    assert torch.equal(ensemble.logits(IDS), published.ensemble().logits(IDS))
