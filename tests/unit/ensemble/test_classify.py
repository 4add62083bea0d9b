"""Classification: each shard's scores come from its own stages and its own deepest head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from s3t_ray.config.load import dump_config
from s3t_ray.data.readers.inputs import Example
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.ensemble.replica import Replica
from s3t_ray.errors import ConfigError, StoreError
from s3t_ray.store.store import Store
from tests.tiny import tiny_bert
from tests.unit.ensemble.published import config_for, publish_files, tensors_file

LABELS = ("joy", "anger", "fear")
IDS = [5, 17, 250, 33, 8]
SETTINGS = b'{"r": 2, "lora_alpha": 4.0, "use_rslora": false}'


class Encoder:
    """A tiny encoder with 2 shards x 2 stages of 1 layer, and the slow way to its answers."""

    def __init__(self, root: Path, family: str) -> None:
        self.family = family
        self.base = tiny_bert(root / "base", layers=3, hidden=16, family=family)
        self.store = Store.open(str(root / "run"))
        self.config = config_for(self.base, 2, 2, 1, kind="classification", labels=LABELS)
        self.tensors: dict[str, dict[str, Tensor]] = {}
        self.heads: dict[str, dict[str, Tensor]] = {}
        model, report = AutoModelForSequenceClassification.from_pretrained(
            self.base, num_labels=len(LABELS), output_loading_info=True
        )
        generator = torch.Generator().manual_seed(0)
        for shard in (0, 1):
            for depth in (1, 2):
                name = f"{family}-{shard}-{depth}"
                module = f"{family}.encoder.layer.{3 - depth}.attention.self.query"
                self.tensors[name] = {
                    f"base_model.model.{module}.lora_{side}.weight": torch.randn(shape, generator=generator)
                    for side, shape in {"A": (2, 16), "B": (16, 2)}.items()
                }
                self.heads[name] = {
                    key: torch.randn(model.get_parameter(key).shape, generator=generator)
                    for key in report["missing_keys"]
                }
                self.publish(name, shard, self.chain(shard, depth - 1), self.heads[name])

    def publish(self, name: str, shard: int, parents: Sequence[str], head: dict[str, Tensor]) -> None:
        files = {
            "adapter_model.safetensors": tensors_file(self.tensors[name]),
            "adapter_config.json": SETTINGS,
            "head.safetensors": tensors_file(head),
        }
        publish_files(self.store, name, shard, parents, files)

    def chain(self, shard: int, depth: int) -> tuple[str, ...]:
        return tuple(f"{self.family}-{shard}-{at}" for at in range(1, depth + 1))

    @torch.inference_mode()
    def slow(self, chain: tuple[str, ...], ids: Sequence[int]) -> Tensor:
        """Class scores of one chain's model, its adapters added to the weights by hand."""
        model = AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=len(LABELS)).eval()
        for name in chain:
            key = next(iter(self.tensors[name])).removesuffix(".lora_A.weight")
            a, b = (self.tensors[name][f"{key}.lora_{side}.weight"] for side in "AB")
            model.get_submodule(key.removeprefix("base_model.model.")).weight += 4.0 / 2 * (b @ a)
        model.load_state_dict(self.heads[chain[-1]], strict=False)
        return model(input_ids=torch.tensor([list(ids)])).logits[0]

    def ensemble(self) -> Ensemble:
        return Ensemble(self.config, self.base, self.store)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tmp_path_factory.mktemp(request.param), request.param)


def test_scores_are_the_mean_over_shards_each_with_its_own_head(encoder: Encoder) -> None:
    ensemble = encoder.ensemble()
    for version, depths in enumerate([(2, 1), (1, 2), (0, 1)], start=1):
        chains = {shard: encoder.chain(shard, depth) for shard, depth in enumerate(depths)}
        ensemble.set_live(version, chains)
        expected = torch.stack([encoder.slow(chain, IDS) for chain in chains.values() if chain]).mean(0)
        torch.testing.assert_close(ensemble.logits(IDS), expected, atol=1e-5, rtol=1e-5)


def test_without_a_live_head_every_class_is_as_likely(encoder: Encoder) -> None:
    judged = encoder.ensemble().judge(Example(tuple(IDS), ()))
    assert judged.scores == pytest.approx([1 / 3] * 3)
    assert judged.depths == (0, 0)


def test_evaluation_by_depth(encoder: Encoder) -> None:
    ensemble = encoder.ensemble()
    ensemble.set_live(1, {0: encoder.chain(0, 2), 1: encoder.chain(1, 1)})
    examples = [Example((3 + at, 9, 40 + at), (), at % 3) for at in range(6)]
    report = ensemble.held_out_losses(examples)
    for depth in (1, 2):
        chains = [encoder.chain(0, depth), encoder.chain(1, 1)]
        scores = [torch.stack([encoder.slow(chain, each.input_ids) for chain in chains]).mean(0) for each in examples]
        pairs = [(score, each.label or 0) for score, each in zip(scores, examples, strict=True)]
        losses = [-float(torch.log_softmax(score, dim=-1)[label]) for score, label in pairs]
        assert report.by_depth[depth].loss == pytest.approx(sum(losses) / 6, abs=1e-4)
        assert (
            report.by_depth[depth].metrics["accuracy"]
            == sum(int(score.argmax()) == label for score, label in pairs) / 6
        )
        spread = torch.tensor(losses, dtype=torch.float64).std().item() / 6**0.5
        assert report.by_depth[depth].standard_error == pytest.approx(spread, rel=1e-3)
    assert report.by_depth[0].loss == pytest.approx(torch.tensor(3.0).log().item())
    assert report.current == report.by_depth[2]


def test_a_head_of_other_labels_is_refused(encoder: Encoder) -> None:
    name = encoder.chain(0, 1)[0]
    encoder.tensors["odd"] = encoder.tensors[name]
    encoder.publish("odd", 0, (), {key: value[:1] for key, value in encoder.heads[name].items()})
    with pytest.raises(StoreError, match=r"head\.safetensors holds"):
        encoder.ensemble().set_live(1, {0: ("odd",)})


def test_a_replica_answers_with_the_label(encoder: Encoder) -> None:
    replica = Replica(dump_config(encoder.config), str(encoder.base), encoder.store.uri)
    chain = encoder.chain(0, 2)
    replica.set_live(1, {0: chain})
    answer = replica.generate("such a day")
    ids = replica._tokenizer("such a day")["input_ids"]
    assert answer.text == LABELS[int(encoder.slow(chain, ids).argmax())]
    assert answer.depths == (2, 0)
    report = replica.evaluate([json.dumps({"text": "such a day", "label": answer.text})])
    assert report.current.metrics["accuracy"] == 1.0


def test_what_belongs_to_text_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="does not generate text"):
        encoder.ensemble().stream(IDS, 3)
