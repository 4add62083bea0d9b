"""Vision transformers: stored states, packs and exports behave as for text encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient
from transformers import AutoModelForImageClassification, ViTForImageClassification

from s3t_ray.config.base_model import digest_base, find_base
from s3t_ray.config.load import dump_config
from s3t_ray.data.images.image_transform import Picture, read_transform
from s3t_ray.data.slices import Row
from s3t_ray.ensemble.answers import Judged
from s3t_ray.ensemble.replica import Replica
from s3t_ray.errors import ConfigError, DataError
from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.http import make_app
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.adapters import export_adapter
from s3t_ray.train.examples import Item, make_item
from s3t_ray.train.forward import pack_items
from s3t_ray.train.loading.check_base import check_base_model
from tests.e2e.train.lab import Lab, make_lab, put_slice, rows, train_chain
from tests.fakes.serving import FakeBackend
from tests.images import LABELS, data_url, image_content, png
from tests.tiny import tiny_vit
from tests.unit.serve.asking import ASK, ERASE, ask

TASK = {"kind": "image_classification", "labels": LABELS}
CPU = torch.device("cpu")
FILES = ("adapter_model.safetensors", "head.safetensors")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vit(tmp_path_factory.mktemp("vit") / "base")


def lab_of(root: Path, base: Path, **sections: Any) -> Lab:
    lab = make_lab(root, base=base, **{**sections, "task": TASK})
    slices = []
    for index in range(3):
        own = [
            Row(row.id, json.dumps(image_content(10 * index + n, LABELS[n % 2])), row.digest)
            for n, row in enumerate(rows(index, 5))
        ]
        slices.append(put_slice(lab.store, root, index, own))
    return Lab(root, lab.config, base, lab.store, tuple(slices))


def items(lab: Lab) -> list[Item]:
    transform = read_transform(lab.base, lab.config.task)
    pictures = [Picture(png(number), transform) for number in range(3)]
    return [make_item(f"r{n}", 0, n, (0,) * transform.tokens, (n % 2,), (), each) for n, each in enumerate(pictures)]


def with_heads(lab: Lab) -> Any:
    """A trainer whose model has a head of random weights."""
    trainer = lab.trainer()
    generator = torch.Generator().manual_seed(0)
    for name, shape in trainer._base.fresh.items():
        trainer._base.model.get_parameter(name).data = torch.randn(shape, generator=generator)
    return trainer


def test_what_is_stored_changes_no_bit(tmp_path: Path, base: Path) -> None:
    published, stored = {}, {}
    for boundaries in ("all", (1,), (2,), ()):
        lab = lab_of(
            tmp_path / str(boundaries),
            base,
            engine={"stored_boundaries": boundaries, "micro_batch_tokens": 12},
            optimizer={"epochs": 2},
            lora={"dropout": 0.1},
        )
        names = train_chain(lab, lab.trainer(), "s")
        published[boundaries] = [lab.store.read_bytes(f"stages/{name}/{file}") for name in names for file in FILES]
        stored[boundaries] = len(lab.store.files("hidden"))
    assert len({tuple(files) for files in published.values()}) == 1
    assert stored["all"] > stored[(1,)] > stored[()] == 0
    assert read_manifest(lab.store, names[0]).versions["pillow"]


def test_the_upper_layers_on_stored_states_are_the_whole_model_to_the_bit(tmp_path: Path, base: Path) -> None:
    trainer = with_heads(lab_of(tmp_path, base))
    packed = pack_items(items(lab_of(tmp_path / "again", base)), None, CPU)
    forward, grouped = trainer._forward, trainer._grouped
    with torch.no_grad():
        whole = forward.last_states(packed)
        for layer in (2, 4):
            entering = forward.states_entering((layer,), packed)[layer]
            with grouped.cut(layer):
                upper = forward.last_states(pack_items(items(lab_of(tmp_path / str(layer), base)), entering, CPU))
            assert torch.equal(upper, whole)


def test_a_pack_is_the_images_alone_and_the_models_own_loss(tmp_path: Path, base: Path) -> None:
    lab = lab_of(tmp_path, base)
    trainer = with_heads(lab)
    forward, model, own = trainer._forward, trainer._base.model, items(lab)
    with torch.no_grad():
        packed = forward.last_states(pack_items(own, None, CPU))
        alone = torch.cat([forward.last_states(pack_items([item], None, CPU)) for item in own])
        torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
        loss = float(forward.loss(pack_items(own, None, CPU)))
        assert float(forward.loss(pack_items([], None, CPU))) == 0.0
        model.set_attn_implementation("eager")
        pixels = torch.stack([torch.from_numpy(item.picture.pixels()) for item in own if item.picture])
        theirs = model(pixel_values=pixels, labels=torch.tensor([0, 1, 0])).loss
    assert loss == pytest.approx(3 * float(theirs), rel=1e-4)


def test_recomputed_states_train_the_same_model_up_to_rounding(tmp_path: Path, base: Path) -> None:
    tensors = []
    for states in ("store", "recompute"):
        lab = lab_of(tmp_path / states, base, engine={"hidden_states": states})
        train_chain(lab, lab.trainer(), "s", (0, 1))
        tensors.append(lab.tensors("s2"))
    for name, value in tensors[0].items():
        torch.testing.assert_close(value, tensors[1][name], rtol=1e-2, atol=1e-3)


class ReplicaBackend(FakeBackend):
    """A service that classifies with one replica."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica

    async def judge(self, text: str) -> Judged:
        return self._replica.judge(text)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Lab, list[str], Replica]:
    """Two stages that learned the two classes, in service."""
    lab = lab_of(tmp_path_factory.mktemp("learned"), base, optimizer={"epochs": 12, "lr": 5e-3})
    names = train_chain(lab, lab.trainer(), "s", (0, 1))
    replica = Replica(dump_config(lab.config), str(base), lab.store.uri)
    replica.set_live(1, {0: tuple(names)})
    return lab, names, replica


def test_pictures_are_classified_over_http_as_data_urls(learned: tuple[Lab, list[str], Replica]) -> None:
    _, names, replica = learned
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    client = TestClient(make_app(ReplicaBackend(replica), tokens), raise_server_exceptions=False)
    urls = [data_url(png(number, LABELS[number % 2])) for number in (70, 71)]
    document = ask(client, "/v1/classifications", model="alpaca", input=urls).json()
    for url, entry in zip(urls, document["data"], strict=True):
        judged = replica.judge(url)
        assert (entry["label"], entry["probabilities"]) == (judged.answer, dict(judged.labels))
    assert document["s3t"] == {"run": "alpaca", "version": 1, "depths": [2], "stages": names}
    for wrong, words in (
        (data_url(png(1)[:80]), "truncated or damaged"),
        ("a cat", "data URL"),
        (urls[0][:-7], "base64"),
    ):
        refused = ask(client, "/v1/classifications", model="alpaca", input=wrong)
        assert refused.status_code == 400 and words in refused.json()["error"]["message"], wrong


def test_the_ensemble_judges_as_peft_does(learned: tuple[Lab, list[str], Replica], tmp_path: Path, base: Path) -> None:
    lab, names, replica = learned
    losses = read_manifest(lab.store, names[0]).losses
    assert sum(losses[-2:]) < sum(losses[:2])
    export_adapter(lab.store, names, tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(base, num_labels=2)
    theirs = PeftModel.from_pretrained(model, tmp_path / "out").eval()
    pixels = read_transform(base, lab.config.task).pixels(png(77, "stripes"))
    with torch.inference_mode():
        scores = torch.softmax(theirs(pixel_values=torch.from_numpy(pixels)[None]).logits[0], dim=-1)
    judged = replica.judge(data_url(png(77, "stripes")))
    assert judged.answer == LABELS[int(scores.argmax())]
    assert dict(judged.labels) == pytest.approx(dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-5)
    for wrong in (lambda: replica.tokenise("a", True), lambda: replica.detokenise((1,))):
        with pytest.raises(DataError, match="reads images, which have no token ids"):
            wrong()
    report = replica.evaluate([json.dumps(image_content(n, LABELS[n % 2])) for n in range(40, 50)])
    assert 0.0 <= report.current.metrics["accuracy"] <= 1.0
    assert report.by_depth[0].loss == pytest.approx(0.6931, abs=1e-3)  # the base knows nothing of the labels


def test_the_check_of_the_base(tmp_path: Path, base: Path) -> None:
    config = lab_of(tmp_path, base).config
    assert check_base_model(config, find_base(config.model)).tokens == 5
    weights = load_file(base / "model.safetensors")

    def refused(words: str, changed: dict[str, torch.Tensor]) -> None:
        folder = tiny_vit(tmp_path / words.replace(" ", "-"))
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(ConfigError, match=words):
            check_base_model(config, folder)

    lacking = next(name for name in weights if ".3." in name and name.endswith("bias"))
    refused("missing", {name: value for name, value in weights.items() if name != lacking})
    refused("a different shape", {**weights, lacking: torch.zeros(7)})
    refused("unexpected", {**weights, "decoder.weight": torch.zeros(7)})
    headed = tmp_path / "headed"
    model = ViTForImageClassification.from_pretrained(base, num_labels=3)
    model.save_pretrained(headed)
    with pytest.raises(ConfigError, match="already has a task head"):
        check_base_model(config, headed)


def test_settings_of_the_processor_are_part_of_the_base(tmp_path: Path) -> None:
    folder = tiny_vit(tmp_path / "base")
    before = digest_base(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    assert digest_base(folder) != before
