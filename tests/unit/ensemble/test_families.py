"""Every trainable family of text models is served correctly: rows, cache, sliding windows, tied heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

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


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("Mistral", {"sliding_window": 6}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "olmo2": ("Olmo2", {}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2, "pad_token_id": 1}),
    "phi3": ("Phi3", {"pad_token_id": 1, "sliding_window": 6}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma3_text": ("Gemma3Text", {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16}),
    "granite": ("Granite", {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}),
}


def _model(family: str) -> Any:
    torch.manual_seed(0)
    name, more = MODELS[family]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **more})
    return getattr(transformers, f"{name.replace('3Text', '3')}ForCausalLM")(config)


@pytest.mark.parametrize("family", MODELS)
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
    # Over the sliding window while it answers, and while it reads; the second begins as the first did.
    for prompt in (PROMPT, [*PROMPT, 8, 90, 41, 12, 77, 150, 9]):
        ids = list(prompt)
        for token in ensemble.generate(prompt, 10).tokens:
            logits = slow_logits(base, list(chains.values()), ids)
            torch.testing.assert_close(ensemble.logits(ids), logits, atol=3e-5, rtol=0)
            assert token == int(logits[-1].argmax())
            ids.append(token)
        assert len(ids) == len(prompt) + 10
