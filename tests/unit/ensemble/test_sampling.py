"""Sampling: each setting against the obvious computation, and no row that heeds its neighbours."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.ensemble.batching import sampling
from s3t_ray.ensemble.batching.sampling import SamplingState, penalised, sample, scored
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.errors import ConfigError

LOGITS = torch.log(torch.tensor([[0.15, 0.5, 0.05, 0.3]]))


def drawn(**params: float) -> set[int]:
    return {
        sample(LOGITS, [SamplingState(SamplingParams(1, temperature=1.0, seed=seed, **params))])[0].id  # type: ignore[arg-type]
        for seed in range(300)
    }


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_p": 0.01}, {1}),
        ({"top_p": 0.49}, {1}),
        ({"top_p": 0.79}, {1, 3}),
        ({"top_p": 0.85}, {0, 1, 3}),
        ({}, {0, 1, 2, 3}),
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {0, 1, 3}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"min_p": 0.5}, {1, 3}),
        ({"min_p": 1.0}, {1}),
        ({"min_p": 0.2, "top_p": 0.6}, {1, 3}),
    ],
)
def test_only_what_the_settings_let_through_is_drawn(params: dict[str, float], kept: set[int]) -> None:
    assert drawn(**params) == kept


def test_top_p_that_more_than_the_candidates_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "CANDIDATES", 2)
    assert drawn(top_p=0.85) == {0, 1, 3}
    assert drawn(top_p=0.6) == {1, 3}


def test_draws_follow_the_probabilities() -> None:
    draws = 20_000
    state = SamplingState(SamplingParams(1, temperature=1.0, seed=5))
    found = Counter(sample(LOGITS, [state])[0].id for _ in range(draws))
    expected = LOGITS.exp()[0].tolist()
    chi2 = sum((found[token] - draws * chance) ** 2 / (draws * chance) for token, chance in enumerate(expected))
    assert chi2 < 16.3  # 3 degrees of freedom: 0.1%


@given(st.integers(0, 2**32), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_a_row_does_not_heed_its_neighbours(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 50, generator=generator) * 3
    kinds = [
        SamplingParams(1),
        SamplingParams(1, temperature=0.7, seed=seed),
        SamplingParams(1, temperature=1.3, top_p=0.8, seed=seed + 1),
        SamplingParams(1, temperature=1.0, top_k=5, min_p=0.1, seed=seed + 2),
        SamplingParams(1, temperature=1.0, repetition_penalty=1.5, frequency_penalty=0.4, seed=seed + 3),
    ][:rows]
    together = sample(logits, [SamplingState(params, frozenset({1, 2})) for params in kinds])
    alone = [
        sample(logits[row : row + 1], [SamplingState(params, frozenset({1, 2}))])[0] for row, params in enumerate(kinds)
    ]
    assert together == alone


def test_a_draw_never_takes_what_has_no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, 3] = logits[0, 7] = 0.0

    for edge in (0.0, 0.5, 1 - 2**-53):
        state = SamplingState(SamplingParams(1, temperature=1.0))
        monkeypatch.setattr(state, "draw", lambda edge=edge: edge)
        assert sample(logits, [state])[0].id in (3, 7)


def test_penalties_are_those_that_others_compute() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0]])
    state = SamplingState(
        SamplingParams(1, presence_penalty=0.5, frequency_penalty=0.25, repetition_penalty=2.0),
        frozenset({1}),
        Counter({0: 3}),
    )
    changed = penalised(logits, [state])
    assert changed.tolist() == [[2.0 / 2 - 0.5 - 3 * 0.25, -2.0, 0.5, 3.0]]
    assert logits[0, 0] == 2.0, "the model's own logits stay, for log-probabilities"


def test_what_was_said_counts_from_token_to_token() -> None:
    logits = torch.tensor([[1.0, 0.9, 0.8]])
    state = SamplingState(SamplingParams(3, presence_penalty=0.15))
    assert [sample(logits, [state])[0].id for _ in range(3)] == [0, 1, 0]


def test_log_probabilities_are_the_models_own() -> None:
    params = SamplingParams(1, temperature=0.1, seed=1, logprobs=2)
    token = sample(LOGITS, [SamplingState(params)])[0]
    assert token.id == 1 and token.logprob == pytest.approx(float(LOGITS[0, 1]), abs=1e-6)
    assert [other for other, _ in token.top] == [1, 3]
    plain, with_none = scored(LOGITS.repeat(2, 1), [0, 2], [None, 0])
    assert plain.logprob is None and with_none.logprob == pytest.approx(float(LOGITS[0, 2]), abs=1e-6)
    assert with_none.top == ()


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop": ("",)}, "stop"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SamplingParams(1, **settings_)  # type: ignore[arg-type]
