"""Real training of stages in this process: their results depend only on their inputs."""

from __future__ import annotations

import gc
import json
import os
import time
import warnings
from pathlib import Path

import pytest
import torch
from deepspeed import DeepSpeedEngine
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from s3t_ray.data.readers.inputs import encode
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.adapters import export_adapter, load_chain
from s3t_ray.train.job import Progress
from tests.e2e.train.lab import Lab, content, make_lab, put_slice, rows, train, train_chain
from tests.tiny import tiny_bert, tiny_llama

TOKENS = torch.tensor([[5, 60, 7, 80, 9, 100, 11, 120, 13, 140]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, list[str]]:
    """A chain of three stages on a model of 40 layers, where `layers.3` is a prefix of ten others."""
    root = tmp_path_factory.mktemp("deep")
    lora = {"layers_per_group": 12, "rank": 2}
    base = tiny_llama(root / "base", layers=40, hidden=16)
    lab = make_lab(root, base=base, lora=lora, optimizer={"batch_records": 5})
    return lab, train_chain(lab, lab.trainer(), "stage")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def hook_count(model: torch.nn.Module) -> int:
    """Number of hooks on all modules and parameters; it must not grow with the number of stages."""
    things = [*model.modules(), *model.parameters()]
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_post_accumulate_grad_hooks",
    )
    return sum(len(getattr(thing, kind, None) or ()) for thing in things for kind in kinds)


def engines_alive() -> int:
    gc.collect()
    return sum(type(thing) is DeepSpeedEngine for thing in gc.get_objects())


def tensors_alive() -> int:
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def as_peft(model: torch.nn.Module, folder: Path) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT only warns of tensors that it finds no place for
        return PeftModel.from_pretrained(model, folder).eval()


def test_a_stage_publishes_exactly_the_layers_of_its_group(deep: tuple[Lab, list[str]]) -> None:
    lab, names = deep
    for depth, name in enumerate(names, start=1):
        tensors = lab.tensors(name)
        assert {int(key.split(".")[4]) for key in tensors} == set(range(40 - 12 * depth, 52 - 12 * depth))
        assert len(tensors) == 12 * 7 * 2  # layers, linear modules, A and B
        assert all(bool(tensor.any()) for tensor in tensors.values())
        targets = json.loads(lab.store.read_bytes(f"stages/{name}/adapter_config.json"))["target_modules"]
        assert sorted(f"base_model.model.{target}.lora_A.weight" for target in targets) == sorted(
            key for key in tensors if "lora_A" in key
        )


def test_the_merged_chain_is_a_standard_peft_adapter(deep: tuple[Lab, list[str]], tmp_path: Path) -> None:
    lab, names = deep
    trainer = lab.trainer()
    seen = [logits(AutoModelForCausalLM.from_pretrained(lab.base))]
    for depth in (1, 2, 3):
        trainer._grouped.show(load_chain(lab.store, names[:depth]).tensors)
        ours = logits(trainer._base.model)
        folder = export_adapter(lab.store, names[:depth], tmp_path / str(depth))
        theirs = logits(as_peft(AutoModelForCausalLM.from_pretrained(lab.base), folder))
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert all(not torch.allclose(ours, other, atol=1e-4) for other in seen), "a group that changes nothing"
        seen.append(ours)
    trainer._grouped.rest()
    assert torch.allclose(logits(trainer._base.model), seen[0], atol=1e-5)


def test_a_stage_starts_from_its_parents_and_learns_their_slices_too(
    deep: tuple[Lab, list[str]], tmp_path: Path
) -> None:
    """The first loss, with a fresh adapter that changes nothing, is that of the exported parents on those records."""
    lab, names = deep
    parents = as_peft(AutoModelForCausalLM.from_pretrained(lab.base), export_adapter(lab.store, names[:2], tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(lab.base)
    whole = lab.config.model_copy(update={"optimizer": lab.config.optimizer.model_copy(update={"batch_records": 15})})
    first = train(Lab(lab.root, whole, lab.base, lab.store, lab.slices).trainer(), lab.job("all", (0, 1, 2), names[:2]))
    summed, counted = 0.0, 0
    for index in range(3):
        for number in range(5):
            example = encode(content(index, number), tokenizer, lab.config.task)
            labels = torch.tensor([example.labels])
            with torch.no_grad():
                loss = parents(input_ids=torch.tensor([example.input_ids]), labels=labels).loss
            learned = int((labels[0, 1:] != -100).sum())
            summed += float(loss) * learned
            counted += learned
    assert first.steps == 1 and first.records == 15
    assert first.first_loss == pytest.approx(summed / counted, abs=1e-5)


def test_stored_hidden_states_change_no_loss(tmp_path: Path, base: Path) -> None:
    stored = make_lab(tmp_path / "store", base=base)
    anew = make_lab(tmp_path / "anew", base=base, engine={"hidden_states": "recompute"})
    losses = {}
    for lab in (stored, anew):
        names = train_chain(lab, lab.trainer(), "s")
        losses[lab] = [loss for name in names for loss in read_manifest(lab.store, name).losses]
    assert losses[stored] == pytest.approx(losses[anew], abs=1e-5)
    assert not anew.store.files("hidden")
    # Layers 2 and 4 are entered by stages 2 and 1; stage 3 starts at the embeddings.
    kept = {tuple(path.split("/")[3:6:2]) for path in stored.store.files("hidden")}
    # Slice, boundary: the slice that stage 2 adds is not entered at layer 4 by any stage of this order.
    assert kept == {("0", "layer-2"), ("0", "layer-4"), ("1", "layer-2")}


def test_bytes_follow_from_the_data_alone(tmp_path: Path, base: Path) -> None:
    """Independent of earlier training, the order of a file, and the run's other records."""
    first = make_lab(tmp_path / "first", base=base, lora={"dropout": 0.1})
    trainer = first.trainer()
    train_chain(first, trainer, "other", (2, 0, 1))
    ours = [first.adapter(name) for name in train_chain(first, trainer, "s")]

    second = make_lab(tmp_path / "second", base=base, lora={"dropout": 0.1})
    shuffled = tuple(put_slice(second.store, tmp_path, index, rows(index, 5)[::-1]) for index in range(3))
    again = Lab(second.root, second.config, base, second.store, shuffled)
    names = train_chain(again, again.trainer(), "renamed")
    assert [again.adapter(name) for name in names] == ours
    assert len(set(ours)) == 3


def test_removing_a_record_changes_the_adapter(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base)
    trainer = lab.trainer()
    train(trainer, lab.job("with", (0,)))
    fewer = put_slice(lab.store, tmp_path, 0, rows(0, 5)[1:])
    result = train(trainer, Lab(lab.root, lab.config, base, lab.store, (fewer,)).job("without", (0,)))
    assert result.records == 4
    assert lab.adapter("with") != lab.adapter("without")


def test_zero_stages_agree_and_leave_no_hook(tmp_path: Path) -> None:
    losses = {}
    base = tiny_llama(tmp_path / "base", layers=3)
    for zero in (0, 1, 2, 3):
        engine = {"zero_stage": zero, "micro_batch_tokens": 128}
        lab = make_lab(tmp_path / str(zero), base=base, lora={"layers_per_group": 1}, engine=engine)
        trainer = lab.trainer()
        before = hook_count(trainer._base.model)
        names = train_chain(lab, trainer, "s", (0, 1))
        losses[zero] = [loss for name in names for loss in read_manifest(lab.store, name).losses]
        assert hook_count(trainer._base.model) == before
        engines = engines_alive()
        train(trainer, lab.job("one more", (2,)))
        assert engines_alive() <= engines, "a finished stage keeps its engine, and with it its optimizer state"
    for zero in (1, 2, 3):
        assert losses[zero] == pytest.approx(losses[0], abs=1e-3)


def test_fifty_stages_leave_nothing_behind(tmp_path: Path, base: Path) -> None:
    """Hooks, tensors, memory, time and scratch files: none grows with the number of stages."""
    lab = make_lab(tmp_path, base=base, records=2, engine={"zero_stage": 2})
    trainer = lab.trainer()
    first = train(trainer, lab.job("first", (0,)))
    hooks, seconds, resident, tensors = hook_count(trainer._base.model), [], [], []
    for turn in range(48):
        began = time.process_time()
        train(trainer, lab.job(f"turn{turn}", (turn % 3,)))
        seconds.append(time.process_time() - began)
        assert hook_count(trainer._base.model) == hooks
        if turn % 12 == 0:  # counting them takes ten times as long as a stage
            tensors.append(tensors_alive())
        resident.append(resident_bytes())
    last = train(trainer, lab.job("last", (0,)))
    assert trainer.stages_trained == 50
    assert last.adapter_sha256 == first.adapter_sha256
    assert not list((lab.root / "scratch-0").iterdir())
    tensors.append(tensors_alive())
    assert len(set(tensors)) == 1
    # The first stages still fill allocators and caches. An engine left behind is about 1 MB here.
    assert (resident[-1] - resident[9]) / 38 < 300e3
    assert sorted(seconds[-10:])[5] < 3 * sorted(seconds[:10])[5]


def test_gradient_checkpointing_changes_no_loss(tmp_path: Path, base: Path) -> None:
    losses = []
    for name, checkpointing in (("plain", False), ("saving", True)):
        lab = make_lab(
            tmp_path / name, base=base, engine={"gradient_checkpointing": checkpointing}, lora={"dropout": 0.1}
        )
        losses.append(read_manifest(lab.store, train_chain(lab, lab.trainer(), "s", (0, 1))[1]).losses)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_bfloat16_base_keeps_float32_adapters(tmp_path: Path, base: Path) -> None:
    plain = make_lab(tmp_path / "float32", base=base)
    half = make_lab(tmp_path / "bfloat16", base=base)
    # The config refuses bfloat16 on CPU for its speed; the arithmetic is tested here all the same.
    engine = half.config.engine.model_copy(update={"precision": "bfloat16"})
    half = Lab(half.root, half.config.model_copy(update={"engine": engine}), base, half.store, half.slices)
    losses = [read_manifest(lab.store, train_chain(lab, lab.trainer(), "s", (0, 1))[1]).losses for lab in (plain, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert {tensor.dtype for tensor in half.tensors("s1").values()} == {torch.float32}
    assert half.store.size("hidden/" + half.store.files("hidden")[0].partition("/")[2]) > 0


def test_an_empty_stage_is_published_as_the_identity(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base, records=0)
    result = train(lab.trainer(), lab.job("empty", (0,)))
    assert (result.steps, result.records, result.first_loss) == (0, 0, None)
    tensors = lab.tensors("empty")
    assert all(bool(tensor.any()) == ("lora_A" in name) for name, tensor in tensors.items())


def test_a_classifier_has_a_head_for_each_stage(tmp_path: Path) -> None:
    task = {"kind": "classification", "labels": ("good", "bad", "odd"), "max_tokens": 32}
    for family in ("bert", "roberta"):
        base = tiny_bert(tmp_path / family, family=family)
        lab = make_lab(
            tmp_path / f"run-{family}",
            base=base,
            records=6,
            layers=4,
            task=task,
            slices=2,
            engine={"hidden_states": "recompute", "micro_batch_tokens": 64},
            optimizer={"epochs": 4},
        )
        names = train_chain(lab, lab.trainer(), "c", (0, 1))
        heads = [lab.store.read_bytes(f"stages/{name}/head.safetensors") for name in names]
        assert heads[0] != heads[1]
        assert all(set(read_manifest(lab.store, name).files) >= {"head.safetensors"} for name in names)
        result = read_manifest(lab.store, names[0])
        assert result.losses[-1] < result.losses[0]
        chain = load_chain(lab.store, names)
        ours = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        theirs = as_peft(ours, export_adapter(lab.store, names, tmp_path / f"out-{family}"))
        loaded = {key.rpartition("modules_to_save.default.")[2]: value for key, value in theirs.named_parameters()}
        for name, value in chain.head.items():
            leaf = name.partition(".")[2]
            assert torch.equal(loaded[leaf], value)


def test_progress_counts_every_step(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base, optimizer={"epochs": 2})
    seen: list[Progress] = []
    result = train(lab.trainer(), lab.job("s", (0,)), on_progress=seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3, 4] and {progress.steps for progress in seen} == {4}
    assert (seen[0].loss, seen[-1].loss) == (result.first_loss, result.last_loss)
    assert all(progress.tokens_per_second > 0 for progress in seen)
