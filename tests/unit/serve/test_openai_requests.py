"""OpenAI's requests as clients send them: what is accepted, what reaches the model, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.errors import Overloaded
from s3t_ray.serve.routes.answering import Admission
from tests.fakes.serving import FakeBackend
from tests.unit.serve.asking import CHAT, ERASE, ask, bearer, events


@pytest.mark.parametrize(
    ("change", "field", "instead"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "describe them in the prompt"),
        ({"response_format": {"type": "json_object"}}, "response_format", "plain text"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "frequency_penalty"),
        ({"unheard_of": 1}, "unheard_of", "leave it out"),
        ({"n": 0}, "n", "greater"),
        ({"temperature": 3}, "temperature", "less"),
        ({"stop": [""]}, "stop.0", "at least 1"),
        ({"max_tokens": -1}, "max_tokens", "greater"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "user"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages.0.name", ""),
    ],
)
def test_what_is_not_served_is_refused_by_name_with_what_to_do(
    client: TestClient, change: dict[str, Any], field: str, instead: str
) -> None:
    answer = ask(client, **{**CHAT, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert field in answer.json()["error"]["message"] and instead in answer.json()["error"]["message"]


def test_what_changes_nothing_is_taken(client: TestClient, backend: FakeBackend) -> None:
    """As LangChain, litellm and the openai client send it."""
    nothing: dict[str, Any] = {
        "stop": None,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "logprobs": False,
        "top_logprobs": None,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "parallel_tool_calls": True,
        "user": "somebody",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "stream_options": None,
        "seed": None,
        "n": 1,
    }
    history = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Hi", "name": None},
        {
            "role": "assistant",
            "content": "Hello",
            "refusal": None,
            "tool_calls": [],
            "function_call": None,
            "annotations": [],
            "audio": None,
        },
        {"role": "user", "content": "Again"},
    ]
    assert ask(client, model="alpaca", messages=history, **nothing).status_code == 200
    text: dict[str, Any] = {"best_of": 1, "echo": False, "suffix": None, "logprobs": None, "logit_bias": None}
    assert ask(client, "/v1/completions", model="alpaca", prompt="x", **text).status_code == 200
    first, second = backend.wishes
    assert first.prompt[0] == {"role": "system", "content": "Be short."}
    assert first.params.stop == () and first.params.logprobs is None
    assert second.prompt == "x" and not second.as_written


def test_every_sampling_setting_reaches_the_model(client: TestClient, backend: FakeBackend) -> None:
    told: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.2,
        "stop": "\n\n",
        "seed": 11,
        "max_completion_tokens": 33,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert ask(client, **CHAT, **told).status_code == 200
    expected = SamplingParams(33, 0.3, 0.9, 11, 40, 0.05, 0.5, -0.5, 1.2, ("\n\n",), logprobs=2)
    assert backend.wishes[0].params == expected
    assert ask(client, **CHAT, top_k=-1, stop=["a", "b"]).status_code == 200
    assert (backend.wishes[1].params.top_k, backend.wishes[1].params.stop) == (0, ("a", "b"))


def test_several_answers_and_several_prompts_in_one_request(client: TestClient, backend: FakeBackend) -> None:
    document = ask(client, "/v1/completions", model="alpaca", prompt=["a", "b"], n=2, seed=5).json()
    assert [choice["index"] for choice in document["choices"]] == [0, 1, 2, 3]
    assert [(wish.prompt, wish.params.seed) for wish in backend.wishes] == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    assert document["usage"]["completion_tokens"] == 8
    chunks = events(ask(client, **CHAT, n=3, stream=True, stream_options={"include_usage": True}).text)
    for index in range(3):
        own = [chunk["choices"][0] for chunk in chunks[:-1] if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant" and own[-1]["finish_reason"] == "length"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "Hello"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 6
    assert backend.closed == 7
    assert ask(client, "/v1/completions", model="alpaca", prompt=["a"] * 129).status_code == 400


def test_log_probabilities_in_both_shapes(client: TestClient) -> None:
    chat = ask(client, **CHAT, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in chat] == ["Hel", "lo"] and chat[0]["bytes"] == [72, 101, 108]
    assert [entry["token"] for entry in chat[0]["top_logprobs"]] == ["Hel", "x"]
    chunks = events(ask(client, **CHAT, logprobs=True, stream=True).text)
    assert chunks[1]["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5
    text = ask(client, "/v1/completions", model="alpaca", prompt="q", logprobs=1).json()["choices"][0]["logprobs"]
    assert text["tokens"] == ["Hel", "lo"] and text["token_logprobs"] == [-0.5, -0.5]
    assert text["top_logprobs"][0] == {"Hel": -0.5, "x": -2.0} and text["text_offset"] == [0, 3]


def test_what_lm_eval_sends_for_loglikelihood(client: TestClient, backend: FakeBackend) -> None:
    """The payload of its local-completions model, and what its parser reads."""
    payload: dict[str, Any] = {
        "model": "alpaca",
        "prompt": [[1, 2, 3], [4, 5, 6]],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    document = ask(client, "/v1/completions", **payload).json()
    assert [wish.prompt for wish in backend.wishes] == [(1, 2, 3), (4, 5, 6)]
    assert all(wish.params.prompt_logprobs and wish.as_written for wish in backend.wishes)
    for choice in sorted(document["choices"], key=lambda choice: choice["index"]):
        context = 1
        logprobs = choice["logprobs"]
        assert sum(logprobs["token_logprobs"][context:-1]) == pytest.approx(-1.0 - 2.0 - 0.5)
        assert choice["text"] == "p0p1p2Hello"
        assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
        tokens = zip(logprobs["token_logprobs"][context:-1], logprobs["top_logprobs"][context:-1], strict=True)
        assert all(value == max(top.values()) for value, top in tokens)


def test_a_classification_and_token_ids(client: TestClient) -> None:
    document = ask(client, "/v1/classifications", model="alpaca", input=["so good", "meh"]).json()
    assert [entry["label"] for entry in document["data"]] == ["good", "good"]
    assert document["data"][0]["probabilities"] == {"good": 0.75, "bad": 0.25}
    assert document["usage"]["prompt_tokens"] == 3 and document["s3t"]["stages"] == ["a", "b"]
    assert ask(client, "/v1/tokenize", prompt="abc").json() == {"tokens": [1, 2, 3, 4], "count": 4}
    assert ask(client, "/v1/tokenize", messages=CHAT["messages"], as_written=False).json()["tokens"] == [9]
    assert ask(client, "/v1/tokenize").status_code == 400
    assert ask(client, "/v1/detokenize", tokens=[4, 5]).json() == {"prompt": "4 5"}


def test_another_run_is_refused_wherever_it_is_named(client: TestClient, backend: FakeBackend) -> None:
    answer = ask(client, **CHAT, run="other")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "wrong_run")
    assert "'alpaca', not 'other'" in answer.json()["error"]["message"]
    headers = {**bearer(ERASE), "x-s3t-run": "other"}
    assert client.post("/v1/deletions", json={"ids": ["r1"]}, headers=headers).status_code == 409
    answer = client.post("/v1/deletions", json={"ids": ["r1"], "run": "other"}, headers=bearer(ERASE))
    assert answer.status_code == 409 and backend.deleted == []
    assert ask(client, **CHAT, run="alpaca").status_code == 200


def test_a_crowd_is_told_when_to_come_back(client: TestClient, backend: FakeBackend) -> None:
    backend.fails = Overloaded("1024 generations are already queued", "retry later, or add replicas")
    for stream in (False, True):
        answer = ask(client, **CHAT, stream=stream)
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"] == {
            "message": "1024 generations are already queued; retry later, or add replicas",
            "type": "rate_limit_error",
            "param": None,
            "code": "overloaded",
        }
    admission = Admission(most=3)
    admission.enter(2)
    with pytest.raises(Overloaded, match="2 answers are open"):
        admission.enter(2)
    admission.leave(2)
    admission.enter(3)
