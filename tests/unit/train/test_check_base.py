"""The check of the base model: reports what is wrong with a folder, and the fix, before any data is read."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3t_ray.config.base_model import find_base
from s3t_ray.errors import ConfigError
from s3t_ray.train.loading.check_base import check_base_model
from s3t_ray.train.loading.load_model import load_model
from tests.tiny import tiny_bert, tiny_llama
from tests.unit.train.base_config import config_for

SINGLE = "model.safetensors"
WHOLE_FOLDER = ("config.json", SINGLE, "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=2)


@pytest.fixture
def base(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "base"))


def check(folder: Path, **changes: object) -> None:
    config = config_for(folder, **changes)
    check_base_model(config, find_base(config.model))


def refused(folder: Path, words: str, fix: str = "", **changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        check(folder, **changes)
    assert words in caught.value.problem
    assert fix in caught.value.fix and caught.value.fix
    return caught.value.problem


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / SINGLE)), folder / SINGLE)


def settings(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_whole_base_passes(base: Path) -> None:
    check(base)


@pytest.mark.parametrize(
    ("prefix", "fix"),
    [
        ("base_model.model.", "merge_and_unload"),
        ("module.", "DistributedDataParallel"),
        ("_orig_mod.", "torch.compile"),
        ("something.", "download or save the model again"),
    ],
)
def test_weights_under_a_wrapper_s_names(base: Path, prefix: str, fix: str) -> None:
    rewrite(base, lambda weights: {prefix + name: weight for name, weight in weights.items()})
    problem = refused(base, "missing: lm_head.weight, ", fix)
    assert problem.count(prefix) == 5 and "more; 21 unexpected" in problem


def test_weights_without_a_head_or_a_layer(base: Path) -> None:
    rewrite(base, lambda weights: {name: each for name, each in weights.items() if name != "lm_head.weight"})
    refused(base, "1 missing: lm_head.weight", "with its head")
    settings(base, num_hidden_layers=3)
    refused(base, "model.layers.2.input_layernorm.weight")


def test_weights_of_a_model_without_its_head_are_found_by_their_names(base: Path) -> None:
    """Saved as the body alone (keys without `model.`), tied to its embedding: nothing is missing."""
    settings(base, tie_word_embeddings=True)
    rewrite(
        base,
        lambda weights: {
            name.removeprefix("model."): each for name, each in weights.items() if name != "lm_head.weight"
        },
    )
    check(base)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(-1, None)])
def test_a_tied_base_that_stores_another_head_is_refused_by_check_and_loader(base: Path, rows: slice) -> None:
    """transformers would use the stored head, vLLM the embedding. An equal copy is harmless, whatever its dtype."""
    settings(base, tie_word_embeddings=True)

    def head_from_embedding(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rounded = weights["model.embed_tokens.weight"].bfloat16()
        return {**weights, "model.embed_tokens.weight": rounded.float(), "lm_head.weight": rounded}

    rewrite(base, head_from_embedding)
    check(base)

    def with_another_row(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        head = weights["lm_head.weight"].clone()
        head[rows] += 1
        return {**weights, "lm_head.weight": head}

    rewrite(base, with_another_row)
    refused(base, "lm_head.weight and model.embed_tokens.weight are stored with different values", "to false")
    with pytest.raises(ConfigError, match="stored with different values"):
        load_model(config_for(base), base, torch.device("cpu"), "sdpa")
    settings(base, tie_word_embeddings=False)
    check(base)


def test_weights_of_more_layers_or_another_shape(base: Path) -> None:
    settings(base, num_hidden_layers=1)
    refused(base, "9 unexpected: model.layers.1.input_layernorm.weight")
    settings(base, num_hidden_layers=2, intermediate_size=48)
    refused(base, "with a different shape than in config.json: model.layers.0.mlp.down_proj.weight")


def test_the_loader_refuses_what_the_check_refuses(base: Path) -> None:
    rewrite(base, lambda weights: {name: each for name, each in weights.items() if "layers.1.mlp" not in name})
    refused(base, "3 missing: model.layers.1.mlp.down_proj.weight")
    with pytest.raises(ConfigError, match=r"3 missing: model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(config_for(base), base, torch.device("cpu"), "sdpa")


def test_every_file_missing_cut_off_or_a_pointer(llama: Path, tmp_path: Path) -> None:
    """A fault injection over the folder: each file is refused, or nothing that decides weights or tokens."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    for name in WHOLE_FOLDER:
        size = (llama / name).stat().st_size
        contents = [pointer, b"", *((llama / name).read_bytes()[:length] for length in (3, size // 2, size - 3))]
        for number, content in enumerate([None, *contents]):
            copy = Path(shutil.copytree(llama, tmp_path / f"{name}-{number}"))
            (copy / name).unlink()
            if content is not None:
                (copy / name).write_bytes(content)
            if content is None and name == "tokenizer_config.json":
                continue  # tokenizer.json alone knows the tokens; which of them ends a text is looked at elsewhere
            with pytest.raises(ConfigError) as caught:
                check(copy)
            assert name in caught.value.problem or name == "tokenizer.json"
            if content == pointer:
                assert "Git LFS pointer" in caught.value.problem


def test_every_tensor_renamed_is_refused_by_its_name(llama: Path, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(load_file(llama / SINGLE))):
        copy = Path(shutil.copytree(llama, tmp_path / str(number)))
        weights = load_file(copy / SINGLE)
        save_file({key + ("x" if key == name else ""): each for key, each in weights.items()}, copy / SINGLE)
        problem = refused(copy, f"1 missing: {name}")
        assert f"1 unexpected: {name}x" in problem


def test_a_header_that_lies(base: Path) -> None:
    data = (base / SINGLE).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for change in ({"dtype": "F16"}, {"shape": [1, 2]}, {"data_offsets": [0, 4]}, {"dtype": "X"}, {"shape": None}):
        first = next(name for name in header if name != "__metadata__")
        text = json.dumps({**header, first: {**header[first], **change}}).encode()
        (base / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        with pytest.raises(ConfigError, match="not a safetensors file"):
            check(base)
    (base / SINGLE).write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
    refused(base, "header is truncated")


def test_shards(base: Path) -> None:
    weights = load_file(base / SINGLE)
    names = sorted(weights)
    files = {"model-1-of-2.safetensors": names[:10], "model-2-of-2.safetensors": names[10:]}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, base / file)
    (base / SINGLE).unlink()
    refused(base, "only model-1-of-2.safetensors", "model.safetensors.index.json")
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in files.items() for name in held}}))
    check(base)
    (base / "model-2-of-2.safetensors").rename(base / "away")
    refused(base, "lacks 1 of 2 weight files: model-2-of-2.safetensors")
    (base / "away").rename(base / "model-2-of-2.safetensors")
    save_file({name: weights[name] for name in names[1:10]}, base / "model-1-of-2.safetensors")
    refused(base, f"says that model-1-of-2.safetensors holds {names[0]}")
    index.write_text(json.dumps({"weight_map": {names[0]: "../elsewhere.safetensors"}}))
    refused(base, "outside the folder")


def test_adapters_and_quantised_weights(base: Path, tmp_path: Path) -> None:
    (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/model"}))
    refused(base, "in addition to the base model", "merge the adapter")
    (base / "config.json").unlink()
    refused(base, "holds only an adapter of owner/model", "name the base model of owner/model")
    shutil.copytree(base, tmp_path / "q")
    (base / "adapter_config.json").unlink()


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_foreign_quantisation(base: Path, method: str) -> None:
    settings(base, quantization_config={"quant_method": method, "bits": 4})
    refused(base, f"already quantized (quantization_config, method {method})", "model.quantize")


def test_weights_that_are_no_floating_point_numbers(base: Path) -> None:
    rewrite(base, lambda weights: {**weights, "lm_head.weight": weights["lm_head.weight"].to(torch.int8)})
    refused(base, "lm_head.weight is stored as I8")


def test_the_tokenizer_fits(base: Path) -> None:
    def shrink(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rows = ("lm_head.weight", "model.embed_tokens.weight")
        return {name: each[:280].contiguous() if name in rows else each for name, each in weights.items()}

    path = base / "tokenizer_config.json"
    whole = path.read_text()
    path.write_text(json.dumps({name: value for name, value in json.loads(whole).items() if name != "eos_token"}))
    refused(base, "no end-of-sequence token")
    path.write_text(whole)
    rewrite(base, shrink)
    settings(base, vocab_size=280)
    refused(base, "ids up to 299, but the model's embedding has 280 rows")
    (base / "tokenizer.json").unlink()
    refused(base, "contains no tokenizer", "save_pretrained")


def test_the_family_and_the_task(base: Path) -> None:
    settings(base, model_type="mamba")
    refused(base, "'mamba' is not supported", "llama")
    settings(base, model_type="llama")
    task = {"kind": "classification", "labels": ["a", "b"]}
    refused(base, "does not fit the llama model", "set task.kind: causal_lm", task=task)
    refused(base, "lora.targets names ['qproj']", "all-linear", lora={"layers_per_group": 1, "targets": ["qproj"]})


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_encoder_lacks_its_head_and_nothing_else(family: str, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "encoder", layers=2, family=family)
    task = {"kind": "classification", "labels": ["a", "b"]}
    changes: dict[str, object] = {"task": task, "engine": {"hidden_states": "recompute"}}
    check(folder, **changes)
    whole = load_file(folder / SINGLE)
    # A checkpoint of pretraining, by its older names.
    old = {f"{family}.{name}": each for name, each in whole.items()} | {"cls.predictions.bias": torch.zeros(300)}
    save_file(old if family == "bert" else whole, folder / SINGLE)
    check(folder, **changes)
    save_file({f"wrapped.{name}": each for name, each in whole.items()}, folder / SINGLE)
    with pytest.raises(ConfigError, match=f"missing: {family}.embeddings."):
        check(folder, **changes)
    save_file({**whole, "classifier.weight": torch.zeros(2, 32), "classifier.bias": torch.zeros(2)}, folder / SINGLE)
    with pytest.raises(ConfigError):
        check(folder, **changes)


@pytest.mark.parametrize(("kind", "refuses"), [("dynamic", True), ("longrope", True), ("llama3", False)])
def test_positions_that_depend_on_the_longest_record_of_a_batch(base: Path, kind: str, refuses: bool) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 256}
    more = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4} if kind == "longrope" else {}
    llama3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    settings(base, rope_parameters={**rope, **more, **llama3}, rope_theta=10000.0)
    check(base, task={"max_tokens": 256})
    if refuses:
        refused(base, "depends on the longest record", "256 or less", task={"max_tokens": 257})
    else:
        check(base, task={"max_tokens": 257})


@pytest.mark.parametrize("entry", ["configuration_files", "transformers_weights"])
def test_a_config_that_has_other_files_read(base: Path, entry: str) -> None:
    """transformers would follow it, to a file that was not checked or, for settings, is no part of the digest."""
    shutil.copy(base / "config.json", base / "config.4.0.0.json")
    shutil.copy(base / SINGLE, base / "other.safetensors")
    settings(base, **{entry: ["config.4.0.0.json"] if entry == "configuration_files" else "other.safetensors"})
    refused(base, f"makes the loader read other files than the standard ones ({entry}: ", "save_pretrained")


def test_a_config_made_for_another_machine(base: Path) -> None:
    """The kernel that its author used need not be installed: which one is used here is the run's config's to say."""
    settings(base, attn_implementation="flash_attention_2", _attn_implementation="flash_attention_2")
    check(base)
    settings(base, hidden_act="nosuchact")
    refused(base, "config.json names 'nosuchact', which is not known")


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 1 // (messages | length - 2) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages[0]['content'].join(3) }}",
        "{% include '/etc/hostname' %}",
    ],
)
def test_a_template_that_fails(base: Path, template: str) -> None:
    (base / "chat_template.jinja").write_text(template)
    refused(base, "the chat template in", "restore chat_template.jinja", task={"prompt": "chat_template"})


def test_a_tokenizer_that_is_read_from_other_files(base: Path) -> None:
    """None of these is part of the base's digest."""
    path = base / "tokenizer_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "fast_tokenizer_files": ["tokenizer.4.0.0.json"]}))
    refused(base, "fast_tokenizer_files", "save_pretrained")
    path.write_text(json.dumps(told))
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates/tool_use.jinja").write_text("{{ messages[0].content }}")
    check(base)
    (base / "additional_chat_templates/default.jinja").write_text("{{ messages[0].content }}")
    refused(base, "overrides chat_template.jinja", "save_pretrained")
    shutil.rmtree(base / "additional_chat_templates")
    for name in ("tekken.json", "tokenizer.model.v3", "tiktoken.model"):
        (base / name).write_text("{}")
        check(base)
        (base / "tokenizer.json").rename(base / "away")
        (base / "vocab.json").write_text("{}")
        refused(base, f"other files than the standard ones: {name}")
        (base / "away").rename(base / "tokenizer.json")
        (base / name).unlink()
