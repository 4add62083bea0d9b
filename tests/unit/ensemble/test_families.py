"""Every family of text models that the engine trains is served right: rows, cache, sliding windows, tied heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.store.store import Store
from tests.unit.ensemble.published import config_for, publish_stage, slow_logits

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}
PROMPT = [5, 17, 250, 33]


def _model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "mistral":
        return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6))
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_generation_equals_separate_models_without_a_cache(family: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    _model(family).save_pretrained(base)
    store = Store.open(str(tmp_path / "run"))
    chains = {0: ("top", "below"), 1: ("other",)}
    publish_stage(store, base, "top", 0, [], [3], seed=1)
    publish_stage(store, base, "below", 0, ["top"], [1, 2], seed=2)
    publish_stage(store, base, "other", 1, [], [3], seed=3)
    ensemble = Ensemble(config_for(base, 2, 2, 1), base, store)
    ensemble.set_live(1, chains)
    ids = list(PROMPT)
    for token in ensemble.generate(PROMPT, 10).tokens:
        logits = slow_logits(base, list(chains.values()), ids)
        torch.testing.assert_close(ensemble.logits(ids), logits, atol=1e-5, rtol=0)
        assert token == int(logits[-1].argmax())
        ids.append(token)
    assert len(ids) == 14  # well over the sliding window
