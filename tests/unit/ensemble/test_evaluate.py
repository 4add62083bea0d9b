"""Held-out loss by depth: equal to one model at a time, one record at a time, one depth at a time."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from s3t_ray.data.readers.inputs import NO_LOSS, Example
from s3t_ray.ensemble import evaluate as evaluating
from s3t_ray.errors import ConfigError, DataError
from tests.unit.ensemble.conftest import SLICES, Published
from tests.unit.ensemble.published import slow_logits


def examples(count: int = 5) -> list[Example]:
    chance = random.Random(4)
    made = []
    for _ in range(count):
        ids = [chance.randrange(3, 300) for _ in range(chance.randrange(6, 20))]
        learned = [token if chance.random() < 0.6 else NO_LOSS for token in ids[:-1]]
        made.append(Example(tuple(ids), (*learned, ids[-1])))
    return made


def slow_losses(published: Published, depths: tuple[int, ...], records: list[Example]) -> list[tuple[float, int]]:
    """(summed loss, labelled tokens) of each record under the ensemble of these depths."""
    chains = [published.chain(shard, depth) for shard, depth in enumerate(depths) if depth] or [()]
    losses = []
    for record in records:
        chances = torch.log_softmax(slow_logits(published.base, chains, record.input_ids), dim=-1)
        own = [-float(chances[at, label]) for at, label in enumerate(record.labels[1:]) if label != NO_LOSS]
        losses.append((sum(own), len(own)))
    return losses


def test_every_depth_equals_the_slow_way(published: Published) -> None:
    ensemble, records = published.ensemble(), examples()
    ensemble.set_live(1, published.chains(3, 1))
    report = ensemble.held_out_losses(records)
    assert list(report.by_depth) == list(range(SLICES + 1))
    for depth, score in {**report.by_depth, SLICES + 9: report.current}.items():
        losses = slow_losses(published, (min(depth, 3), min(depth, 1)), records)
        tokens = sum(count for _, count in losses)
        mean = sum(loss for loss, _ in losses) / tokens
        assert score.loss == pytest.approx(mean, abs=1e-5)
        assert score.perplexity == pytest.approx(math.exp(mean), rel=1e-5)
        assert score.tokens == tokens
        assert score.metrics == {}
        # Jackknife: an independent estimate of the error of a ratio.
        left = [(mean * tokens - loss) / (tokens - count) for loss, count in losses]
        centre = sum(left) / len(left)
        jackknife = math.sqrt((len(left) - 1) / len(left) * sum((value - centre) ** 2 for value in left))
        assert score.standard_error == pytest.approx(jackknife, rel=0.2)
    assert report.records == len(records)
    assert report.live == ensemble.live()
    assert len({round(score.loss, 4) for score in report.by_depth.values()}) == 4  # else nothing was told apart


def test_dead_shards_are_left_out(published: Published) -> None:
    ensemble, records = published.ensemble(), examples(3)
    ensemble.set_live(1, published.chains(0, 2))
    report = ensemble.held_out_losses(records, [2])
    losses = slow_losses(published, (0, 2), records)
    assert report.current.loss == pytest.approx(
        sum(loss for loss, _ in losses) / sum(count for _, count in losses), abs=1e-5
    )
    assert report.by_depth[2] == report.current


def test_with_all_dead_every_depth_is_the_base(published: Published) -> None:
    report = published.ensemble().held_out_losses(examples(2))
    assert all(score == report.current for score in report.by_depth.values())


def test_long_texts_are_judged_in_pieces(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, records = published.ensemble(), examples(2)
    ensemble.set_live(1, published.chains(2, 2))
    whole = ensemble.held_out_losses(records)
    monkeypatch.setattr(evaluating, "_CHUNK_LOGITS", 3 * 300)
    pieces = ensemble.held_out_losses(records)
    assert pieces.current.loss == pytest.approx(whole.current.loss, abs=1e-6)
    assert pieces.current.tokens == whole.current.tokens


def test_records_with_nothing_to_predict_are_counted_apart(published: Published) -> None:
    ensemble = published.ensemble()
    nothing = [Example((4, 5, 6), (NO_LOSS,) * 3), Example((4,), (4,)), Example((), ())]
    report = ensemble.held_out_losses([*examples(2), *nothing])
    assert (report.records, report.skipped) == (2, 3)
    assert report.current == ensemble.held_out_losses(examples(2)).current
    with pytest.raises(DataError, match="none of the 3 held-out records"):
        ensemble.held_out_losses(nothing)


def test_one_record_has_no_spread(published: Published) -> None:
    assert published.ensemble().held_out_losses(examples(1)).current.standard_error == 0.0


def test_a_negative_depth_is_refused(published: Published) -> None:
    with pytest.raises(ConfigError, match="depths must be 0 or more"):
        published.ensemble().held_out_losses(examples(1), [-1])


def test_a_prune_in_the_middle_begins_the_evaluation_anew(published: Published) -> None:
    ensemble, fresh, records = published.ensemble(), published.ensemble(), examples()
    ensemble.set_live(1, published.chains(3, 2))
    fresh.set_live(2, published.chains(1, 2))
    calls = 0
    turn = ensemble._service.turn

    def counting(lease: Any, compute: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            ensemble.set_live(2, published.chains(1, 2))
        return turn(lease, compute)

    ensemble._service.turn = counting  # type: ignore[method-assign]
    assert ensemble.held_out_losses(records) == fresh.held_out_losses(records)
    assert calls == 4 + 1 + len(records)  # three turns lost, the refused one, and a whole evaluation
