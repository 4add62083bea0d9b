"""Encoders: packing and stored states as for decoders, on texts and pairs, for classes and values, equal to PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from s3t_ray.config.load import dump_config
from s3t_ray.data.slices import Row
from s3t_ray.ensemble.replica import Replica
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.adapters import export_adapter
from s3t_ray.train.engine import Batch
from s3t_ray.train.examples import Item, make_item
from s3t_ray.train.forward import pack_items, pad_items
from tests.e2e.train.lab import Lab, make_lab, put_slice, rows, train_chain
from tests.tiny import tiny_bert

LABELS = ("good", "bad")
TASKS = {
    "classes": {"kind": "classification", "labels": LABELS},
    "pairs": {"kind": "regression", "text": "{a}", "pair": "{b}"},
}


@pytest.fixture(scope="module", params=["bert", "roberta"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp(request.param) / "base", layers=6, family=request.param)


def pair(index: int, number: int) -> str:
    said = {"text": f"text {number} " * (number % 3 + 1), "pair": f"of {index}", "label": number / 2 - index}
    return json.dumps(said)


def lab_of(root: Path, base: Path, task: str, **sections: Any) -> Lab:
    lab = make_lab(root, base=base, task=TASKS[task], **sections)
    if task == "classes":
        return lab
    slices = [[Row(row.id, pair(index, n), row.digest) for n, row in enumerate(rows(index, 5))] for index in range(3)]
    return Lab(
        root, lab.config, base, lab.store, tuple(put_slice(lab.store, root, i, own) for i, own in enumerate(slices))
    )


@pytest.mark.parametrize("task", TASKS)
def test_what_is_stored_changes_no_bit(tmp_path: Path, base: Path, task: str) -> None:
    published, stored = {}, {}
    for boundaries in ("all", (1,), (2,), ()):
        lab = lab_of(
            tmp_path / str(boundaries),
            base,
            task,
            engine={"stored_boundaries": boundaries, "micro_batch_tokens": 60},
            optimizer={"epochs": 2},
            lora={"dropout": 0.1},
        )
        names = train_chain(lab, lab.trainer(), "s")
        files = ("adapter_model.safetensors", "head.safetensors")
        published[boundaries] = [lab.store.read_bytes(f"stages/{name}/{file}") for name in names for file in files]
        stored[boundaries] = len(lab.store.files("hidden"))
    assert len({tuple(files) for files in published.values()}) == 1
    assert stored["all"] > stored[(1,)] > stored[()] == 0


@pytest.mark.parametrize("task", TASKS)
def test_a_packed_row_is_the_records_alone_and_a_padded_rectangle(tmp_path: Path, base: Path, task: str) -> None:
    target: list[float] = [1.5, -0.5, 0.0] if task == "pairs" else [1, 0, 1]
    items: list[Item] = [
        make_item(f"r{n}", 0, n, range(5, 5 + size), target[n : n + 1], [0] * (size - 2) + [1] * 2)
        for n, size in enumerate((4, 9, 6))
    ]
    lab = lab_of(tmp_path, base, task)
    trainer = lab.trainer()
    device = torch.device("cpu")
    forward, place = trainer._forward, trainer._base.model

    def loss(batch: Batch) -> float:
        with torch.no_grad():
            return float(forward.loss(batch))

    generator = torch.Generator().manual_seed(0)
    for name, shape in trainer._base.fresh.items():
        place.get_parameter(name).data = torch.randn(shape, generator=generator)
    packed = loss(pack_items(items, None, device))
    assert packed == pytest.approx(sum(loss(pack_items([item], None, device)) for item in items), rel=1e-5)
    # The rectangle's mask reaches transformers' own attention, which the packed one would not read.
    place.set_attn_implementation("eager")
    assert packed == pytest.approx(loss(pad_items(items, 1, device)), rel=1e-4)
    assert loss(pack_items([], None, device)) == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_the_ensemble_judges_as_peft_does(tmp_path: Path, base: Path, task: str) -> None:
    lab = lab_of(tmp_path, base, task, optimizer={"epochs": 8, "lr": 3e-3})
    names = train_chain(lab, lab.trainer(), "s", (0, 1))
    losses = read_manifest(lab.store, names[0]).losses
    assert sum(losses[-2:]) < sum(losses[:2])  # two steps are an epoch
    head_rows = 1 if task == "pairs" else 2
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=head_rows)
    export_adapter(lab.store, names, tmp_path / "out")
    theirs = PeftModel.from_pretrained(model, tmp_path / "out").eval()
    asked = ["such a day", "of 1"] if task == "pairs" else ["such a day"]
    with torch.inference_mode():
        scores = theirs(
            **AutoTokenizer.from_pretrained(base)(*asked, return_tensors="pt", return_token_type_ids=True)
        ).logits[0]
    replica = Replica(dump_config(lab.config), str(base), lab.store.uri)
    replica.set_live(1, {0: tuple(names)})
    prompt = json.dumps({"a": asked[0], "b": asked[1]}) if task == "pairs" else asked[0]
    answer = replica.generate(prompt).text
    assert (float(answer) if task == "pairs" else answer) == (
        pytest.approx(float(scores[0]), abs=2e-4) if task == "pairs" else LABELS[int(scores.argmax())]
    )
    records = [pair(1, n) for n in range(5)] if task == "pairs" else [row.content for row in rows(1, 5, LABELS)]
    report = replica.evaluate(records)
    assert set(report.current.metrics) == ({"pearson", "spearman"} if task == "pairs" else {"accuracy"})
    if task == "pairs":
        wanted = [json.loads(record)["label"] for record in records]
        assert report.by_depth[0].loss == pytest.approx(sum(value**2 for value in wanted) / 5)  # the base says 0
