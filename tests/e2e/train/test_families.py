"""Every supported family of text models: its stages, packs and exports.

A family stands in `config/families.py` only while these hold for it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

from s3t_ray.config.base_model import find_base
from s3t_ray.config.families import FAMILIES
from s3t_ray.errors import ConfigError
from s3t_ray.train.adapters import export_adapter, load_chain
from s3t_ray.train.examples import IGNORED, Item, make_item
from s3t_ray.train.forward import Forward, pack_items
from s3t_ray.train.loading.check_base import check_base_model
from tests.e2e.train.lab import Lab, make_lab, train_chain
from tests.tiny import tiny_llama

TEXT = sorted(name for name, family in FAMILIES.items() if family.architecture == "decoder")
CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.1,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "olmo2": ("Olmo2", {}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "phi3": ("Phi3", {}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma3_text": ("Gemma3Text", {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "granite": (
        "Granite",
        {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1},
    ),
}


@pytest.fixture(scope="module", params=TEXT)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp(request.param)
    base = tiny_llama(root / "base")  # for its tokenizer
    name, more = MODELS[request.param]
    settings = getattr(transformers, f"{name}Config")(**{**SIZES, **more})
    torch.manual_seed(0)
    model = {"Gemma3Text": "Gemma3"}.get(name, name)
    getattr(transformers, f"{model}ForCausalLM")(settings).save_pretrained(base)
    states = "recompute" if FAMILIES[request.param].mixes_attention else "store"
    return make_lab(root, base=base, lora={"layers_per_group": 2, "rank": 4}, engine={"hidden_states": states})


def items() -> list[Item]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, length in enumerate((17, 5, 31)):
        tokens = torch.randint(3, 300, (length + 1,), generator=generator).tolist()
        made.append(make_item(f"r{number}", 0, number, tokens[:-1], [IGNORED] * 3 + tokens[4:]))
    return made


def test_the_check_passes(lab: Lab) -> None:
    check_base_model(lab.config, find_base(lab.config.model))


def test_upper_layers_from_stored_states_equal_the_whole_model_to_the_bit(lab: Lab) -> None:
    if lab.config.engine.hidden_states == "recompute":
        engine = lab.config.engine.model_copy(update={"hidden_states": "store"})
        with pytest.raises(ConfigError, match="which stored hidden states do not support"):
            check_base_model(lab.config.model_copy(update={"engine": engine}), lab.base)
        return
    trainer = lab.trainer()
    forward: Forward = trainer._forward
    with torch.inference_mode():
        for item in items():
            whole = forward.last_states(pack_items([item], None, CPU))
            for layer in (2, 4):
                states = forward.states_entering((layer,), pack_items([item], None, CPU))[layer].clone()
                with trainer._grouped.cut(layer):
                    assert torch.equal(forward.last_states(pack_items([item], states, CPU)), whole)


def test_packed_records_do_not_see_each_other(lab: Lab) -> None:
    forward: Forward = lab.trainer()._forward
    with torch.inference_mode():
        packed = forward.last_states(pack_items(items(), None, CPU))
        alone = torch.cat([forward.last_states(pack_items([item], None, CPU)) for item in items()])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
    changed = items()
    changed[0] = make_item("r0", 0, 0, [7] * 17, [IGNORED] * 16 + [7])
    with torch.inference_mode():
        other = forward.last_states(pack_items(changed, None, CPU))
    assert torch.equal(other[17:], packed[17:]) and not torch.equal(other[:17], packed[:17])


def test_the_loss_is_the_models_own(lab: Lab) -> None:
    trainer = lab.trainer()
    (item,) = items()[:1]
    plain = AutoModelForCausalLM.from_pretrained(lab.base)
    with torch.inference_mode():
        logits = plain(input_ids=torch.from_numpy(item.tokens).long().unsqueeze(0)).logits[0]
        targets = torch.from_numpy(item.targets).long()
        theirs = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        ours = trainer._forward.loss(pack_items([item], None, CPU))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-5)


def test_an_export_of_trained_stages_is_a_standard_adapter(lab: Lab, tmp_path: Path) -> None:
    trainer = lab.trainer()
    names = train_chain(lab, trainer, "s")
    ids = torch.tensor([[5, 60, 7, 80, 9, 100]])
    plain = AutoModelForCausalLM.from_pretrained(lab.base)
    with torch.no_grad():
        base = plain(input_ids=ids).logits
        trainer._grouped.show(load_chain(lab.store, names).tensors)
        ours = trainer._base.model(input_ids=ids).logits
        folder = export_adapter(lab.store, names, tmp_path / "export")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            theirs = PeftModel.from_pretrained(plain, folder).eval()(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, base, atol=1e-4), "the adapters change nothing"


def test_the_same_stage_twice_is_the_same_bytes(lab: Lab) -> None:
    first, second = (lab.trainer().train(lab.job(name, (1,)), lambda _: None, lambda: False) for name in "ab")
    assert first.adapter_sha256 == second.adapter_sha256
