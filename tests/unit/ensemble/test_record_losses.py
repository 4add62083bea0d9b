"""Losses by model: equal to one model at a time, one token at a time, computed by PEFT and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from s3t_ray.audit import record_losses
from s3t_ray.audit.attack_scores import RecordLoss, min_k
from s3t_ray.audit.record_losses import Judge
from s3t_ray.data.readers.inputs import NO_LOSS, encode
from tests.unit.ensemble.conftest import Published
from tests.unit.ensemble.published import slow_logits
from tests.unit.ensemble.test_classify import LABELS, Encoder


def contents(count: int) -> list[str]:
    return [
        json.dumps({"instruction": f"name {index}", "input": "", "output": f"it is {index} " * (index + 1)})
        for index in range(count)
    ]


def judge(published: Published) -> Judge:
    chains = [published.chain(0, 3), published.chain(1, 2), ()]
    return Judge(published.config, published.base, published.store, chains)


def slow(published: Published, content: str) -> RecordLoss:
    example = encode(content, AutoTokenizer.from_pretrained(published.base), published.config.task)
    nll, lowest = [], []
    for chain in (published.chain(0, 3), published.chain(1, 2), ()):
        chances = torch.log_softmax(slow_logits(published.base, [chain], example.input_ids), dim=-1)
        own = [float(chances[at, label]) for at, label in enumerate(example.labels[1:]) if label != NO_LOSS]
        nll.append(-sum(own) / len(own))
        lowest.append(min_k(own))
    return RecordLoss(tuple(nll), tuple(lowest))


def test_losses_equal_the_slow_way(published: Published) -> None:
    texts = contents(3)
    for content, found in zip(texts, judge(published).losses(texts), strict=True):
        assert found is not None and found.min_k is not None
        expected = slow(published, content)
        assert expected.min_k is not None
        assert found.nll == pytest.approx(expected.nll, abs=1e-5)
        assert found.min_k == pytest.approx(expected.min_k, abs=1e-5)
        assert len({round(value, 3) for value in found.nll}) == 3  # else no model was told from another


def test_many_models_and_long_texts_go_in_pieces(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = contents(2)
    whole = list(judge(published).losses(texts))
    monkeypatch.setattr(record_losses, "_ROWS", 2)
    monkeypatch.setattr(record_losses, "_CHUNK_LOGITS", 3 * 300)
    for pieces, at_once in zip(judge(published).losses(texts), whole, strict=True):
        assert pieces is not None and at_once is not None and pieces.min_k is not None and at_once.min_k is not None
        assert pieces.nll == pytest.approx(at_once.nll, abs=1e-5)
        assert pieces.min_k == pytest.approx(at_once.min_k, abs=1e-5)


def test_a_record_that_teaches_nothing_has_no_loss(published: Published) -> None:
    endless = json.dumps({"instruction": "word " * 600, "input": "", "output": "beyond"})
    first, second = judge(published).losses([endless, *contents(1)])
    assert first is None
    assert second is not None


def test_a_label_has_a_loss_and_no_tokens(tmp_path: Path) -> None:
    encoder = Encoder(tmp_path, "bert")
    tokenizer = AutoTokenizer.from_pretrained(encoder.base)
    content = json.dumps({"text": "what a day", "label": "anger"})
    chains = [encoder.chain(0, 2), encoder.chain(1, 1), ()]
    (found,) = Judge(encoder.config, encoder.base, encoder.store, chains).losses([content])
    assert found is not None
    assert found.min_k is None
    ids = encode(content, tokenizer, encoder.config.task).input_ids
    expected = [-float(torch.log_softmax(encoder.slow(chain, ids), dim=-1)[1]) for chain in chains[:2]]
    assert found.nll[:2] == pytest.approx(expected, abs=1e-5)
    assert found.nll[2] == pytest.approx(float(torch.tensor(len(LABELS)).log()))  # the base knows no label
