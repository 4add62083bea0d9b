"""`lora.isolation: none`: each stage continues training its parent's weights, as in SISA with slices."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from s3t_ray.data.readers.inputs import encode
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.adapters import export_adapter, load_chain
from tests.e2e.train.lab import Lab, content, make_lab, train_chain
from tests.tiny import tiny_bert, tiny_llama

LORA = {"isolation": "none", "layers_per_group": 1}
LAYERS = 4
"""One more than the three groups have: the lowest layer has no adapter."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"), LAYERS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Lab, list[str]]:
    lab = make_lab(tmp_path_factory.mktemp("lab"), base=base, lora=LORA, optimizer={"batch_records": 15, "epochs": 2})
    return lab, train_chain(lab, lab.trainer(), "s")


def peft(lab: Lab, names: list[str], out: Path) -> torch.nn.Module:
    plain = AutoModelForCausalLM.from_pretrained(lab.base)
    return PeftModel.from_pretrained(plain, export_adapter(lab.store, names, out, "none")).eval()


def test_every_stage_holds_the_layers_of_all_groups(trained: tuple[Lab, list[str]]) -> None:
    lab, names = trained
    found = [lab.tensors(name) for name in names]
    for tensors in found:
        assert {int(key.split(".")[4]) for key in tensors} == {1, 2, 3}
    changed = [
        [key for key in found[0] if not torch.equal(before[key], after[key])] for before, after in pairwise(found)
    ]
    assert [len(keys) for keys in changed] == [len(found[0])] * 2


def test_a_stage_goes_on_from_the_weights_of_the_one_before(trained: tuple[Lab, list[str]], tmp_path: Path) -> None:
    """Its first loss is that of the exported stage before it, on all slices so far."""
    lab, names = trained
    tokenizer = AutoTokenizer.from_pretrained(lab.base)
    for depth in (2, 3):
        model = peft(lab, names[: depth - 1], tmp_path / str(depth))
        summed, counted = 0.0, 0
        for index, number in ((index, number) for index in range(depth) for number in range(5)):
            example = encode(content(index, number), tokenizer, lab.config.task)
            labels = torch.tensor([example.labels])
            with torch.no_grad():
                loss = model(input_ids=torch.tensor([example.input_ids]), labels=labels).loss
            learned = int((labels[0, 1:] != -100).sum())
            summed, counted = summed + float(loss) * learned, counted + learned
        first = read_manifest(lab.store, names[depth - 1]).losses[0]
        assert first == pytest.approx(summed / counted, abs=1e-5)


def test_the_last_stage_of_a_chain_answers_alone(trained: tuple[Lab, list[str]], tmp_path: Path) -> None:
    lab, names = trained
    ensemble = Ensemble(lab.config, lab.base, lab.store)
    ids = [5, 60, 7, 80, 9, 100]
    said = []
    for depth in (3, 2, 1):
        ensemble.set_live(4 - depth, {0: tuple(names[:depth])})
        said.append(ensemble.logits(ids))
        with torch.no_grad():
            theirs = peft(lab, names[:depth], tmp_path / str(depth))(input_ids=torch.tensor([ids])).logits[0]
        torch.testing.assert_close(said[-1], theirs, atol=1e-5, rtol=0)
    assert not torch.allclose(said[0], said[1], atol=1e-4) and not torch.allclose(said[1], said[2], atol=1e-4)


def test_one_boundary_is_stored_and_changes_no_loss(trained: tuple[Lab, list[str]], tmp_path: Path) -> None:
    lab, names = trained
    assert {path.split("/")[5] for path in lab.store.files("hidden")} == {"layer-1"}
    steps = {"batch_records": 15, "epochs": 2}
    anew = make_lab(tmp_path, base=lab.base, lora=LORA, engine={"hidden_states": "recompute"}, optimizer=steps)
    again = train_chain(anew, anew.trainer(), "s", (0, 1))
    for one, two in zip(names, again, strict=False):
        assert read_manifest(lab.store, one).losses == pytest.approx(read_manifest(anew.store, two).losses, abs=1e-5)


def test_the_bytes_follow_from_the_data_alone(trained: tuple[Lab, list[str]], tmp_path: Path) -> None:
    """With a trainer that trained other stages before, which replay and healing require."""
    lab, names = trained
    trainer = lab.trainer()
    train_chain(lab, trainer, "other", (2, 0))
    assert [lab.adapter(name) for name in train_chain(lab, trainer, "again")] == [lab.adapter(name) for name in names]


def test_a_task_head_goes_on_too(tmp_path: Path) -> None:
    """Without records, a stage publishes its initial state: its parent's head, not a new one."""
    task = {"kind": "classification", "labels": ("good", "bad"), "max_tokens": 32}
    base = tiny_bert(tmp_path / "base", LAYERS)
    heads = {}
    for isolation in ("none", "layers"):
        lora = {"isolation": isolation, "layers_per_group": 1}
        lab = make_lab(tmp_path / isolation, base=base, records=0, task=task, lora=lora)
        names = train_chain(lab, lab.trainer(), "c", (0, 1))
        heads[isolation] = [lab.store.read_bytes(f"stages/{name}/head.safetensors") for name in names]
        targets = json.loads(lab.store.read_bytes(f"stages/{names[1]}/adapter_config.json"))["target_modules"]
        assert set(load_chain(lab.store, names, isolation).config["target_modules"]) >= set(targets)
    assert heads["none"][0] == heads["none"][1]
    assert heads["layers"][0] != heads["layers"][1]
