"""The base model's folder: found, measured, digested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from s3t_ray.config.base_model import check_base, digest_base, find_base, read_shape
from s3t_ray.config.load import load_config
from s3t_ray.config.schema import Model
from s3t_ray.errors import ConfigError

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 6,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 1024,
}
BERT = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 514,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    save_file({"weight": np.arange(1000, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("hello")
    return folder


def test_find_local(base: Path) -> None:
    assert find_base(Model(path=str(base))) == base
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"has no model\.safetensors"):
        find_base(Model(path=str(base)))
    (base / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        find_base(Model(path=str(base)))
    with pytest.raises(ConfigError, match="not a folder"):
        find_base(Model(path=str(base / "nowhere")))


def test_find_on_the_hub(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def fake_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert not any(pattern.endswith((".bin", ".py")) for pattern in allow_patterns)
        return str(base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake_download)
    assert find_base(Model(path="owner/model", revision="abc")) == base
    assert asked == [("owner/model", "abc")]


def test_a_hub_that_fails_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    with pytest.raises(ConfigError, match="cannot be downloaded from the hub: no route to host"):
        find_base(Model(path="owner/model"))


def test_a_name_that_no_hub_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a hub name"):
        find_base(Model(path="what ever!"))


def test_shapes(base: Path) -> None:
    llama = read_shape(base)
    assert (llama.layers, llama.hidden, llama.heads, llama.kv_heads, llama.positions) == (6, 32, 4, 2, 1024)
    assert llama.layer_parameters == 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    assert not llama.tied_embeddings
    (base / "config.json").write_text(json.dumps({**LLAMA, "head_dim": 16, "tie_word_embeddings": True}))
    wide = read_shape(base)
    assert (wide.head_dim, wide.tied_embeddings) == (16, True)
    (base / "config.json").write_text(json.dumps(BERT))
    bert = read_shape(base)
    assert bert.layer_parameters == 4 * 32 * 32 + 2 * 32 * 64
    (base / "config.json").write_text(json.dumps({**BERT, "model_type": "roberta"}))
    assert read_shape(base).positions == 512


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ('{"model_type": "mamba"}', "'mamba' is not supported"),
        (json.dumps({**LLAMA, "hidden_size": -1}), "hidden_size = -1"),
        (json.dumps({**LLAMA, "vocab_size": "many"}), "vocab_size = 'many'"),
        (json.dumps({**LLAMA, "head_dim": 0}), "head_dim = 0, not a positive whole number"),
        (json.dumps({**LLAMA, "max_position_embeddings": "many"}), "max_position_embeddings = 'many'"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_bad_config_json_is_named(base: Path, text: str, words: str) -> None:
    (base / "config.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_shape(base)
    assert words in caught.value.problem


def test_check_base(base: Path, config_file: Path) -> None:
    config = load_config(config_file)
    assert check_base(config, base).layers == 6
    with pytest.raises(ConfigError, match="at most 1024 tokens"):
        check_base(load_config(config_file, ["task.max_tokens=1025"]), base)
    with pytest.raises(ConfigError, match="3 x 3 = 9 layers"):
        check_base(load_config(config_file, ["lora.layers_per_group=3"]), base)
    told = "model.shape={layers: 6, hidden: 32, intermediate: 64, heads: 4, kv_heads: %d, vocabulary: 300}"
    assert check_base(load_config(config_file, [told % 2]), base).kv_heads == 2
    with pytest.raises(ConfigError, match=r"kv_heads 4 \(config.json: 2\)"):
        check_base(load_config(config_file, [told % 4]), base)


def test_the_digest_follows_what_decides_the_model_and_nothing_else(base: Path, tmp_path: Path) -> None:
    digest = digest_base(base)
    (base / "README.md").write_text("changed")
    (base / "generation_config.json").write_text("{}")
    assert digest_base(base) == digest
    assert digest_base(Path(shutil.copytree(base, tmp_path / "elsewhere"))) == digest
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        copy = Path(shutil.copytree(base, tmp_path / f"changed {name}"))
        with (copy / name).open("ab") as file:
            file.write(b" ")
        assert digest_base(copy) != digest
    (base / "model.safetensors").rename(base / "model-1.safetensors")
    assert digest_base(base) != digest
