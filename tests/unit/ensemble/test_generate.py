"""Generation: equal to recomputing everything for each token, and never a mixture of two live sets."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from s3t_ray.ensemble.answers import Ended, Finish, Started, Token
from s3t_ray.errors import ConfigError, DataError
from tests.unit.ensemble.conftest import Published
from tests.unit.ensemble.published import slow_logits

PROMPT = [5, 17, 250, 33]


def greedy_without_cache(published: Published, depths: tuple[int, ...], count: int) -> tuple[int, ...]:
    chains = [published.chain(shard, depth) for shard, depth in enumerate(depths) if depth] or [()]
    ids = list(PROMPT)
    for _ in range(count):
        ids.append(int(slow_logits(published.base, chains, ids)[-1].argmax()))
    return tuple(ids[len(PROMPT) :])


@pytest.mark.parametrize("depths", [(3, 2), (0, 1), (0, 0)])
def test_the_cache_changes_nothing(published: Published, depths: tuple[int, ...]) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(7, published.chains(*depths))
    made = ensemble.generate(PROMPT, 12)
    assert made.tokens == greedy_without_cache(published, depths, 12)
    assert made.depths == depths
    assert made.version == 7
    assert made.finish == Finish.LENGTH
    assert set(made.stages) == {name for chain in published.chains(*depths).values() for name in chain}


def test_different_live_sets_answer_differently(published: Published) -> None:
    answers = {greedy_without_cache(published, depths, 12) for depths in [(3, 2), (0, 1), (0, 0), (1, 2)]}
    assert len(answers) == 4  # else the tests here could not fail


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_prune_in_the_middle_begins_the_answer_anew(published: Published, temperature: float) -> None:
    ensemble, fresh = published.ensemble(), published.ensemble()
    ensemble.set_live(1, published.chains(3, 2))
    fresh.set_live(1, published.chains(1, 2))
    events = []
    stream = ensemble.stream(PROMPT, 12, temperature=temperature, seed=3)
    for event in stream:
        events.append(event)
        if len(events) == 6:  # Started and 5 tokens
            ensemble.set_live(2, published.chains(1, 2))
    again = [index for index, event in enumerate(events) if isinstance(event, Started)]
    assert again == [0, 6]  # not one token more of the old set
    second = events[6]
    assert isinstance(second, Started)
    assert second.version == 2
    assert second.stages == (*published.chain(0, 1), *published.chain(1, 2))
    after = tuple(event.id for event in events[7:-1] if isinstance(event, Token))
    assert after == fresh.generate(PROMPT, 12, temperature=temperature, seed=3).tokens
    assert events[-1] == Ended(Finish.LENGTH, tokens=12)


def test_generate_reports_the_restart_and_returns_only_the_new_answer(published: Published) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(3, 2))
    calls = 0
    turns = ensemble._service.turns

    def counting(leases: Any, compute: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            ensemble.set_live(2, published.chains(0, 1))
        return turns(leases, compute)

    ensemble._service.turns = counting  # type: ignore[method-assign]
    made = ensemble.generate(PROMPT, 12)
    assert made.restarts == 1
    assert (made.version, made.depths) == (2, (0, 1))
    assert made.tokens == greedy_without_cache(published, (0, 1), 12)


def test_growth_in_the_middle_leaves_the_answer_alone(published: Published) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(1, 1))
    stream = ensemble.stream(PROMPT, 12)
    events = [next(stream) for _ in range(4)]
    ensemble.set_live(2, published.chains(3, 2))
    events += stream
    assert [event.version for event in events if isinstance(event, Started)] == [1]
    assert tuple(event.id for event in events if isinstance(event, Token)) == greedy_without_cache(
        published, (1, 1), 12
    )


def test_a_paused_stream_keeps_nothing_of_a_pruned_stage(published: Published) -> None:
    """Neither the adapter nor the key-value cache that it made."""
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(3, 2))
    stream = ensemble.stream(PROMPT, 12)
    for _ in range(4):
        next(stream)
    (lease,) = ensemble._service._leases
    assert lease.live is not None
    weak = [
        weakref.ref(lease.memory),
        weakref.ref(next(iter(lease.live.stages["stage-0-3"].deltas.values())).up),
    ]
    ensemble.set_live(2, published.chains(2, 2))
    gc.collect()
    assert [reference() for reference in weak] == [None, None]
    assert isinstance(next(stream), Started)


def test_end_of_sequence_ends_the_answer(published: Published) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(3, 2))
    whole = ensemble.generate(PROMPT, 12).tokens
    end = next(token for token in whole[3:] if token not in whole[:3])
    cut = ensemble.generate(PROMPT, 12, eos=[end])
    assert cut.tokens == whole[: whole.index(end)]
    assert cut.finish == Finish.STOP


def test_the_seed_decides_what_is_drawn(published: Published) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(1, 1))
    drawn = [ensemble.generate(PROMPT, 12, temperature=1.0, seed=seed).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_answer_stops_where_the_context_ends(published: Published) -> None:
    ensemble = published.ensemble()
    longest = 1024
    made = ensemble.generate([7] * (longest - 2), 12)
    assert len(made.tokens) == 3  # the last one needs no place
    assert made.finish == Finish.LENGTH
    with pytest.raises(DataError, match="1025 tokens, but the model reads at most 1024"):
        ensemble.generate([7] * (longest + 1), 12)
    with pytest.raises(DataError, match="empty"):
        ensemble.generate([], 12)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1, "temperature": -1.0}, "temperature"),
        ({"max_new_tokens": 1, "top_p": 0.0}, "top_p"),
        ({"max_new_tokens": 1, "top_p": 1.5}, "top_p"),
    ],
)
def test_settings_out_of_range_are_refused(published: Published, settings: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        published.ensemble().stream(PROMPT, **settings)  # type: ignore[arg-type]
