"""Stages that end early: stopped, crashed and resumed, or refused because of invalid inputs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from s3t_ray.errors import ConfigError, StageDamaged, TrainError
from s3t_ray.train.job import Progress, StageStopped
from tests.e2e.train.lab import Lab, make_lab, train, train_chain
from tests.tiny import tiny_bert, tiny_llama


class Crash(Exception):
    """Stands for a kill in the middle of a stage."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


def crash_at(step: int) -> Any:
    def on_progress(progress: Progress) -> None:
        if progress.step == step:
            raise Crash

    return on_progress


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_a_crashed_stage_resumes_to_the_same_bytes(tmp_path: Path, zero: int) -> None:
    lab = make_lab(
        tmp_path,
        layers=3,
        lora={"layers_per_group": 1, "dropout": 0.1},
        optimizer={"epochs": 3},
        engine={"checkpoint_steps": 2, "zero_stage": zero},
    )
    trainer = lab.trainer()
    job = lab.job("s", (0,))
    steps: list[int] = []
    whole = train(trainer, job)
    assert not lab.store.files("checkpoints")
    lab.store.delete("stages/s")
    with pytest.raises(Crash):
        train(trainer, job, on_progress=crash_at(5))
    assert {path.split("/")[2] for path in lab.store.files("checkpoints/s")} == {"000000004"}
    again = train(trainer, job, on_progress=lambda progress: steps.append(progress.step))
    assert steps == [5, 6]
    assert (again.adapter_sha256, again.first_loss, again.steps) == (whole.adapter_sha256, whole.first_loss, 6)
    assert not lab.store.files("checkpoints")


def test_a_damaged_checkpoint_only_costs_time(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base, optimizer={"epochs": 2}, engine={"checkpoint_steps": 2})
    trainer = lab.trainer()
    whole = train(trainer, lab.job("s", (0,)))
    with pytest.raises(Crash):
        train(trainer, lab.job("s", (0,)), on_progress=crash_at(3))
    (file,) = [path for path in lab.store.files("checkpoints/s") if path.endswith("rank-0.safetensors")]
    lab.store.write_bytes(file, lab.store.read_bytes(file)[:-1] + b"x")
    steps: list[int] = []
    again = train(trainer, lab.job("s", (0,)), on_progress=lambda progress: steps.append(progress.step))
    assert steps == [1, 2, 3, 4] and again.adapter_sha256 == whole.adapter_sha256


def test_a_stopped_stage_leaves_nothing(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base, optimizer={"epochs": 3}, engine={"checkpoint_steps": 1})
    trainer = lab.trainer()
    seen: list[int] = []
    with pytest.raises(StageStopped):
        train(trainer, lab.job("s", (0,)), lambda progress: seen.append(progress.step), lambda: len(seen) == 3)
    assert seen == [1, 2, 3]
    assert not lab.store.files("stages") and not lab.store.files("checkpoints")
    assert not list((lab.root / "scratch-0").iterdir())
    with pytest.raises(Crash):
        train(trainer, lab.job("t", (0,)), on_progress=crash_at(2))
    assert lab.store.files("checkpoints/t")
    lab.store.delete("hidden")
    with pytest.raises(StageStopped):  # before its first step, while it computes states
        train(trainer, lab.job("t", (0,)), should_stop=lambda: True)
    assert not lab.store.files("checkpoints")
    assert not lab.store.files("hidden"), "states of a slice that were not whole"
    train(trainer, lab.job("s", (0,)))  # the trainer itself is unharmed


def test_a_slice_file_that_is_not_the_expected_one_refuses_the_stage(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base)
    trainer = lab.trainer()
    slices = lab.slices
    swapped = dataclasses.replace(slices[0], path=slices[1].path)
    miscounted = dataclasses.replace(slices[0], records=6)
    for bad, message in ((swapped, slices[1].path), (miscounted, "has 5 rows, expected 6")):
        with pytest.raises(TrainError, match=message):
            train(trainer, Lab(lab.root, lab.config, base, lab.store, (bad,)).job("s", (0,)))
    assert not lab.store.files("stages") and not lab.store.files("hidden")


def test_damaged_stored_states_refuse_the_stage(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base)
    trainer = lab.trainer()
    train(trainer, lab.job("s", (0,)))
    (path,) = [path for path in lab.store.files("hidden") if path.endswith("layer-4/part-0.safetensors")]
    data = bytearray(lab.store.read_bytes(path))
    data[-1] ^= 1
    lab.store.write_bytes(path, bytes(data))
    with pytest.raises(TrainError, match="layer-4/part-0"):
        train(trainer, lab.job("t", (0,)))


def test_parents_must_be_the_published_ones_of_this_chain(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base)
    trainer = lab.trainer()
    first, second = train_chain(lab, trainer, "s", (0, 1))
    for parents, message in (
        ((), "has depth 2 but 0 parents"),
        ((second,), "has parents"),
        ((train(trainer, lab.job("other", (2,))).stage_id,), "was not trained on exactly"),
    ):
        with pytest.raises(TrainError, match=message):
            train(trainer, lab.job("bad", (0, 1), parents))
    adapter = bytearray(lab.adapter(first))
    adapter[-1] ^= 1
    lab.store.write_bytes(f"stages/{first}/adapter_model.safetensors", bytes(adapter))
    with pytest.raises(StageDamaged, match=f"stages/{first}/adapter_model.safetensors has sha256"):
        train(trainer, lab.job("bad", (0, 1), (first,)))
    assert not lab.store.exists("stages/bad/manifest.json")


def test_a_loss_that_is_not_finite_publishes_nothing(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base, optimizer={"lr": 1e30, "epochs": 3, "grad_clip": 0.0})
    with pytest.raises(TrainError, match=r"optimizer\.lr"):
        train(lab.trainer(), lab.job("s", (0,)))
    assert not lab.store.files("stages")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"lora": {"layers_per_group": 3}}, "needs 9 layers, but the model has 6"),
        ({"lora": {"layers_per_group": 2, "targets": ("q_proj", "kv_proj")}}, "kv_proj"),
        ({"task": {"kind": "classification", "labels": ("a", "b")}}, "task.kind classification does not fit the llama"),
    ],
)
def test_a_config_that_does_not_fit_the_base_is_refused(
    tmp_path: Path, base: Path, sections: dict[str, Any], message: str
) -> None:
    lab = make_lab(tmp_path, base=base, **sections)
    with pytest.raises(ConfigError, match=message):
        lab.trainer()


def test_an_encoder_packs_for_stored_states_with_its_own_attention_only(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "bert")
    task = {"kind": "classification", "labels": ("a", "b")}
    lab = make_lab(tmp_path, base=base, model={"path": str(base), "attention": "eager"}, slices=2, task=task)
    with pytest.raises(ConfigError, match="hidden_states to recompute"):
        lab.trainer()


def test_a_base_with_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    task = {"kind": "classification", "labels": ("a", "b")}
    encoder = tiny_bert(tmp_path / "bert")  # its tokenizer stays
    for labels in (2, 5):
        AutoModelForSequenceClassification.from_pretrained(
            tiny_bert(tmp_path / f"encoder-{labels}"), num_labels=labels
        ).save_pretrained(encoder)
        lab = make_lab(tmp_path / str(labels), base=encoder, slices=2, task=task, engine={"hidden_states": "recompute"})
        with pytest.raises(ConfigError, match="already has a task head"):
            lab.trainer()


def test_a_group_has_as_many_ranks_as_the_recipe(tmp_path: Path, base: Path) -> None:
    lab = make_lab(tmp_path, base=base, engine={"ranks": 2})
    with pytest.raises(TrainError, match=r"engine\.ranks 2"):
        lab.trainer()
