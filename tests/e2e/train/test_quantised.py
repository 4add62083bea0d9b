"""A quantized base, really loaded by bitsandbytes: it only has different weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.errors import ConfigError
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.examples import make_item
from s3t_ray.train.forward import pack_items
from s3t_ray.train.loading import quantised
from s3t_ray.train.loading.quantised import QuantisedWeight
from tests.e2e.train.lab import Lab, make_lab, save_lab, train_chain
from tests.tiny import tiny_llama

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
KINDS = ("8bit", "4bit")
HIDDEN = 64
# The sixteen numbers of NormalFloat4 (Dettmers et al. 2023, 2305.14314, appendix E).
NEGATIVE = (-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105003, 0.0)
POSITIVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
NF4 = torch.tensor([*NEGATIVE, *POSITIVE])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"), hidden=HIDDEN)


def lab_of(root: Path, base: Path, quantize: str, **engine: object) -> Lab:
    return make_lab(
        root,
        base=base,
        model={"path": str(base), "quantize": quantize},
        lora={"dropout": 0.1},
        engine={"micro_batch_tokens": 96, **engine},
    )


def weights_of(model: torch.nn.Module) -> dict[str, QuantisedWeight]:
    """The quantised weights, by the name that they have in the base's folder."""
    return {
        f"{name.removesuffix('.base_layer')}.weight": vars(module)["quantised"]
        for name, module in model.named_modules()
        if "quantised" in vars(module)
    }


def slow(weight: torch.Tensor, quantize: str) -> torch.Tensor:
    """A weight after rounding to 8 or 4 bits, by definition."""
    if quantize == "8bit":
        half = weight.half()
        scale = half.abs().amax(dim=1, keepdim=True).float()
        return torch.round(half.float() * 127 / scale) * scale / 127
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(NF4).abs().argmin(dim=-1)
    return (NF4[nearest] * scale).reshape(weight.shape)


@pytest.mark.parametrize("quantize", KINDS)
def test_weights_are_what_so_many_bits_keep_of_them(tmp_path: Path, base: Path, quantize: str) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    found = weights_of(lab_of(tmp_path, base, quantize).trainer()._base.model)
    assert set(found) == {name for name in plain if "proj" in name}
    for name, weight in found.items():
        assert weight.unpacked().dtype == torch.float32 and weight.shape == plain[name].shape
        # A number half-way between two steps may go either way.
        same = (weight.unpacked() - slow(plain[name], quantize)).abs() < 1e-5
        assert same.float().mean() > 0.999
        assert torch.allclose(weight.unpacked(), plain[name], atol=0.005 if quantize == "8bit" else 0.1)
        assert not torch.equal(weight.unpacked(), plain[name])


@pytest.mark.parametrize("quantize", KINDS)
def test_training_is_that_on_the_unpacked_weights_to_the_bit(tmp_path: Path, base: Path, quantize: str) -> None:
    """Gradients through the frozen layers exist and are correct, and a replay in a new trainer repeats them."""
    lab = lab_of(tmp_path / "packed", base, quantize)
    trainer = lab.trainer()
    before = {name: weight.unpacked() for name, weight in weights_of(trainer._base.model).items()}
    ours = [lab.adapter(name) for name in train_chain(lab, trainer, "s")]
    assert all(torch.equal(weight.unpacked(), before[name]) for name, weight in weights_of(trainer._base.model).items())

    model = AutoModelForCausalLM.from_pretrained(base)
    model.load_state_dict({**model.state_dict(), **before})
    unpacked = tiny_llama(tmp_path / "unpacked-base", hidden=HIDDEN)
    model.save_pretrained(unpacked)
    plain = lab_of(tmp_path / "plain", unpacked, "none")
    assert [plain.adapter(name) for name in train_chain(plain, plain.trainer(), "s")] == ours

    assert [lab.adapter(name) for name in train_chain(lab, lab.trainer(), "again")] == ours
    rounded = lab_of(tmp_path / "whole", base, "none")
    assert rounded_differs(rounded, ours)
    losses = read_manifest(lab.store, "s1").losses
    assert losses[-1] < losses[0]


def rounded_differs(lab: Lab, ours: list[bytes]) -> bool:
    return lab.adapter(train_chain(lab, lab.trainer(), "s", (0,))[0]) != ours[0]


@pytest.mark.parametrize("quantize", KINDS)
def test_a_record_is_the_same_in_any_pack_and_with_anything_stored(tmp_path: Path, base: Path, quantize: str) -> None:
    lab = lab_of(tmp_path / "all", base, quantize)
    trainer = lab.trainer()
    items = [make_item(str(row), 0, row, range(5, 5 + size), range(5, 5 + size)) for row, size in enumerate((9, 1, 30))]
    with torch.no_grad():
        together = trainer._forward.last_states(pack_items(items, None, CPU))
        apart = torch.cat([trainer._forward.last_states(pack_items([item], None, CPU)) for item in items])
    assert torch.allclose(together, apart, atol=1e-5)
    stored = [lab.adapter(name) for name in train_chain(lab, trainer, "s")]
    none = lab_of(tmp_path / "none", base, quantize, stored_boundaries=())
    assert [none.adapter(name) for name in train_chain(none, none.trainer(), "s")] == stored


@pytest.mark.parametrize("quantize", KINDS)
def test_the_served_base_is_the_one_that_was_trained_on(tmp_path: Path, base: Path, quantize: str) -> None:
    lab = lab_of(tmp_path, base, quantize)
    served, trained = FrozenBase(lab.config, base), lab.trainer()._base.model
    ids = [5, 17, 250, 33, 8, 120, 77]
    with torch.inference_mode():
        ours = trained.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
        torch.testing.assert_close(served.hidden(ids), ours, atol=1e-5, rtol=0)
    assert {type(layer).__name__ for layer in served.linears.values()} == {
        f"Linear{'8bitLt' if '8' in quantize else '4bit'}"
    }


def test_the_bits_name_the_package_that_made_them(tmp_path: Path, base: Path) -> None:
    for quantize, named in (("8bit", True), ("none", False)):
        lab = lab_of(tmp_path / quantize, base, quantize)
        (name,) = train_chain(lab, lab.trainer(), "s", (0,))
        assert ("bitsandbytes" in read_manifest(lab.store, name).versions) == named


def test_a_missing_package_is_said(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="bitsandbytes is not installed") as caught:
        lab_of(tmp_path, base, "8bit").trainer()
    assert "quantize" in caught.value.fix


def test_a_plain_base_is_trained_without_the_package_that_few_need(tmp_path: Path, base: Path) -> None:
    """It is installed here, and PEFT would import it: when it is imported itself, and when it adds layers."""
    folder = save_lab(lab_of(tmp_path, base, "none"))
    look = (
        "import importlib.util, sys; from pathlib import Path; from tests.e2e.train.lab import load_lab, train_chain; "
        f"lab = load_lab(Path({str(folder)!r})); train_chain(lab, lab.trainer(), 's', (0,)); "
        "print('bitsandbytes' in sys.modules, importlib.util.find_spec('bitsandbytes') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split()[-2:] == ["False", "True"], done.stderr
