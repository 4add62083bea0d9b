"""Many generations in one batch: each as if it were alone, and a deletion affects those that use its stages."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from s3t_ray.ensemble.answers import Ended, Failed, Finish, GenerationEvent, PromptRead, Started, Token
from s3t_ray.ensemble.batching import batch_engine
from s3t_ray.ensemble.batching.batch_engine import BatchEngine
from s3t_ray.ensemble.batching.batch_plan import BatchLimits
from s3t_ray.ensemble.batching.generation_row import GenerationRequest
from s3t_ray.ensemble.batching.outbox import Outbox
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.errors import DataError, Overloaded
from tests.unit.ensemble.conftest import Published
from tests.unit.ensemble.published import slow_logits

LIMITS = BatchLimits(rows=4, step_tokens=9, cache_tokens=400)


@pytest.fixture
def ensemble(published: Published) -> Ensemble:
    made = published.ensemble()
    made._engine = BatchEngine(made._base, made._service, LIMITS)
    made.set_live(1, published.chains(3, 2))
    return made


def listen(ensemble: Ensemble, outbox: Outbox, count: int) -> dict[str, list[GenerationEvent]]:
    """Everything that `count` generations say until each has ended."""
    heard: dict[str, list[GenerationEvent]] = {}
    ended = 0
    while ended < count:
        taken = outbox.take(lambda: ensemble._service.live.stage_ids, 60)
        assert taken.released or taken.withheld, "nothing was said for a minute"
        assert not taken.withheld
        for said in taken.released:
            if isinstance(said.event, Started):
                heard[said.generation] = []
            heard[said.generation].append(said.event)
            ended += isinstance(said.event, Ended | Failed)
    return heard


def ids(events: list[GenerationEvent]) -> tuple[int, ...]:
    return tuple(event.id for event in events if isinstance(event, Token))


def requests(count: int, seed: int) -> dict[str, GenerationRequest]:
    """Prompts of many lengths, some with the same beginning; greedy and drawn answers of many lengths."""
    dice = random.Random(seed)
    beginning = [dice.randrange(5, 250) for _ in range(20)]
    made = {}
    for number in range(count):
        own = [dice.randrange(5, 250) for _ in range(dice.randrange(1, 30))]
        prompt = beginning[: dice.randrange(0, 21)] + own
        params = SamplingParams(dice.randrange(1, 12), dice.choice([0.0, 1.0]), dice.choice([1.0, 0.7]), number)
        made[f"g{number}"] = GenerationRequest(tuple(prompt), params)
    return made


def test_each_of_many_answers_as_if_it_were_alone(ensemble: Ensemble, published: Published) -> None:
    asked = requests(24, 7)
    outbox = Outbox()
    for name, request in asked.items():
        ensemble.submit(name, request, outbox)
    heard = listen(ensemble, outbox, len(asked))
    alone = published.ensemble()
    alone.set_live(1, published.chains(3, 2))
    for name, request in asked.items():
        params = request.params
        made = alone.generate(request.prompt, params.max_new_tokens, params.temperature, params.top_p, params.seed)
        assert ids(heard[name]) == made.tokens, name
        last = heard[name][-1]
        assert isinstance(last, Ended) and last.tokens == len(made.tokens)
    assert any(event.cached_tokens for events in heard.values() for event in events if isinstance(event, Started)), (
        "some began as others did"
    )


def test_a_shared_beginning_is_not_read_again_and_changes_nothing(ensemble: Ensemble) -> None:
    prompt = list(range(10, 60))
    first = ensemble.generate(prompt, 6)
    whole = list(ensemble.stream(prompt, 6))
    assert isinstance(whole[0], Started) and whole[0].cached_tokens == 49, "one token is always left to read"
    assert ids(whole) == first.tokens
    again = list(ensemble.stream([*prompt[:40], 77, 78], 6))
    assert isinstance(again[0], Started) and again[0].cached_tokens == 40 and again[0].prompt_tokens == 42
    ensemble._engine = BatchEngine(ensemble._base, ensemble._service, LIMITS)
    assert ids(again) == ensemble.generate([*prompt[:40], 77, 78], 6).tokens


def test_nothing_computed_by_a_pruned_stage_is_continued(ensemble: Ensemble, published: Published) -> None:
    prompt = list(range(10, 60))
    ensemble.generate(prompt, 6)
    ensemble.set_live(2, published.chains(1, 2))
    events = list(ensemble.stream(prompt, 6))
    assert isinstance(events[0], Started) and events[0].cached_tokens == 0
    fresh = published.ensemble()
    fresh.set_live(2, published.chains(1, 2))
    assert ids(events) == fresh.generate(prompt, 6).tokens


def test_a_deletion_affects_exactly_the_answers_from_its_stages(ensemble: Ensemble, published: Published) -> None:
    ensemble.set_live(2, published.chains(1, 2))
    outbox = Outbox()
    early = GenerationRequest((5, 6, 7), SamplingParams(60))
    ensemble.submit("early", early, outbox)
    while not any(isinstance(said.event, Token) for said in outbox.take(frozenset, 60).released):
        if outbox._stages:
            break
    ensemble.set_live(3, published.chains(3, 2))
    late = GenerationRequest((5, 6, 7), SamplingParams(60, seed=1))
    ensemble.submit("late", late, outbox)
    while "late" not in {row.id for row in ensemble._engine._rows}:  # type: ignore[union-attr]
        threading.Event().wait(0.001)
    ensemble.set_live(4, published.chains(2, 2))
    started: dict[str, list[int]] = {"early": [], "late": []}
    ended = 0
    while ended < 2:
        for said in outbox.take(lambda: ensemble._service.live.stage_ids, 60).released:
            if isinstance(said.event, Started):
                started[said.generation].append(said.event.version)
            ended += isinstance(said.event, Ended)
    assert started["early"] == [2] or started["early"] == [], "growth took nothing from it, nor did the prune"
    assert started["late"][-1] == 4


def test_a_cancelled_generation_leaves_at_the_next_step(ensemble: Ensemble) -> None:
    outbox = Outbox()
    ensemble.submit("gone", GenerationRequest((5, 6, 7), SamplingParams(300)), outbox)
    outbox.take(lambda: ensemble._service.live.stage_ids, 60)
    ensemble.cancel("gone")
    ensemble.cancel("never asked")
    assert len(ids(listen(ensemble, _submitted(ensemble, "next"), 1)["next"])) == 4
    assert ensemble.load == 0


def _submitted(ensemble: Ensemble, name: str) -> Outbox:
    outbox = Outbox()
    ensemble.submit(name, GenerationRequest((9, 8, 7), SamplingParams(4)), outbox)
    return outbox


def test_the_process_does_not_end_before_the_batch(ensemble: Ensemble) -> None:
    """A thread killed inside torch by the end of the interpreter aborts the process: seen once in `s3t generate`."""
    outbox = Outbox()
    ensemble.submit("long", GenerationRequest((5, 6, 7), SamplingParams(300)), outbox)
    outbox.take(lambda: ensemble._service.live.stage_ids, 60)
    (batch,) = [thread for thread in threading.enumerate() if thread.name == "s3t-batch"]
    assert not batch.daemon, "threading waits for it before the interpreter ends"
    ensemble.cancel("long")
    batch.join(60)
    assert not batch.is_alive()


def test_the_prompts_tokens_are_scored_as_the_slow_model_does(ensemble: Ensemble, published: Published) -> None:
    prompt = list(range(10, 45))  # several chunks
    params = SamplingParams(0, logprobs=3, prompt_logprobs=True)
    events = list(ensemble.follow(GenerationRequest(tuple(prompt), params)))
    (read,) = [event for event in events if isinstance(event, PromptRead)]
    assert events[-1] == Ended(Finish.LENGTH, tokens=0) and ids(events) == ()
    logits = slow_logits(published.base, [published.chain(0, 3), published.chain(1, 2)], prompt)
    logs = torch.log_softmax(logits.float(), dim=-1)
    assert [token.id for token in read.tokens] == prompt and read.tokens[0].logprob is None
    for at, token in enumerate(read.tokens[1:], start=1):
        assert token.logprob == pytest.approx(float(logs[at - 1, prompt[at]]), abs=1e-4)
        assert token.top[0][1] == pytest.approx(float(logs[at - 1].max()), abs=1e-4) and len(token.top) == 3


def test_what_does_not_fit_or_overflows_is_refused(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="memory for 400"):
        ensemble.submit("large", GenerationRequest((5,) * 300, SamplingParams(200)), Outbox())
    monkeypatch.setattr(batch_engine, "MOST_WAITING", 0)
    with pytest.raises(Overloaded, match="already queued"):
        ensemble.submit("one", GenerationRequest((5,), SamplingParams(2)), Outbox())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_a_pass_fails_no_request_waits_forever(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    outbox = Outbox()
    monkeypatch.setattr(batch_engine, "packed_hidden", broken)
    ensemble.submit("one", GenerationRequest((5, 6), SamplingParams(2)), outbox)
    (_, last) = listen(ensemble, outbox, 1)["one"]
    assert isinstance(last, Failed)
    monkeypatch.undo()
    assert len(ensemble.generate((5, 6), 2).tokens) == 2, "the next request finds an engine at work"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_a_generation_cannot_start_no_request_waits_forever(
    ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("out of memory")

    outbox = Outbox()
    engine = ensemble._engine
    assert engine is not None
    monkeypatch.setattr(engine._prefixes, "begin", broken)
    with engine._changed:  # both are there at the first step
        for name in ("one", "two"):
            engine._waiting.append((name, GenerationRequest((5, 6), SamplingParams(2)), outbox))
    ensemble.submit("three", GenerationRequest((5, 6), SamplingParams(2)), outbox)
    failed: set[str] = set()
    while len(failed) < 3:
        taken = outbox.take(frozenset, 10)
        assert taken.released, f"only {failed} heard that it cannot go on"
        failed |= {said.generation for said in taken.released if isinstance(said.event, Failed)}
