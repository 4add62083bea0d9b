"""The HTTP service with a backend without a model: tokens, OpenAI's shapes, streams, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from s3t_ray.ensemble.answers import Ended, Finish, Piece, Started
from s3t_ray.errors import ConfigError, DataError, LedgerError
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.run.deletion_list import DeletionFilter
from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.access.token_guard import LARGEST_BODY
from s3t_ray.serve.fingerprint import fingerprint
from s3t_ray.serve.http import (
    DELETION_PATH,
    MODEL_PATH,
    make_deletion_app,
    make_front_app,
    make_model_app,
)
from tests.fakes.serving import FakeBackend
from tests.unit.serve.asking import ASK, CHAT, ERASE, ask, bearer, events

NO_DESK: Any = None
"""Of a page that nobody opens here."""

ROUTES = [
    ("GET", "/v1/models", ASK),
    ("GET", "/v1/models/alpaca", ASK),
    ("POST", "/v1/chat/completions", ASK),
    ("POST", "/v1/completions", ASK),
    ("POST", "/v1/classifications", ASK),
    ("POST", "/v1/tokenize", ASK),
    ("POST", "/v1/detokenize", ASK),
    ("GET", "/v1/deletions", ERASE),
    ("POST", "/v1/deletions", ERASE),
    ("GET", "/v1/deletions/req-1", ERASE),
    ("GET", "/v1/deletions/req-1/certificate", ERASE),
    ("GET", "/v1/deletions/req-1/proof", ERASE),
    ("GET", "/v1/deletions/req-1/receipt-proof", ERASE),
]


@pytest.mark.parametrize(("method", "path", "token"), ROUTES)
def test_each_route_opens_to_its_own_token_only(client: TestClient, method: str, path: str, token: str) -> None:
    other = {ASK: ERASE, ERASE: ASK}[token]
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers=bearer("wrong-token-0123456789")).status_code == 401
    assert client.request(method, path, headers={"authorization": token}).status_code == 401
    assert client.request(method, path, headers={"authorization": f"Basic {token}"}).status_code == 401
    assert client.request(method, path, headers=bearer(other)).status_code == 403
    assert client.request(method, path, headers=bearer(token)).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/docs"])
def test_health_and_the_description_open_to_any_token(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 401
    for token in (ASK, ERASE):
        assert client.get(path, headers=bearer(token)).status_code == 200


def test_unknown_paths_are_closed_too(client: TestClient) -> None:
    for path in ("/", "/v1/nothing"):
        assert client.get(path).status_code == 401
        answer = client.get(path, headers=bearer(ASK))
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_every_endpoint_is_described_and_in_the_table_above(client: TestClient) -> None:
    document = client.get("/openapi.json", headers=bearer(ASK)).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    templates = {"/v1/models/alpaca": "/v1/models/{model}"}
    tested = {(m, templates.get(path, path.replace("req-1", "{request_id}"))) for m, path, _ in ROUTES}
    assert described == tested | {("GET", "/healthz")}
    page = client.get("/docs", headers=bearer(ASK)).text
    assert all(path in page for _, path in described) and "presence_penalty" in page and "src=" not in page


def test_each_application_answers_where_it_is_mounted(backend: FakeBackend) -> None:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    for app, mounted, path, token in (
        (make_model_app(backend, tokens), MODEL_PATH, "/v1/models", ASK),
        (make_deletion_app(backend, tokens), DELETION_PATH, "/v1/deletions/req-1", ERASE),
        (make_front_app(backend, tokens, NO_DESK), "", "/healthz", ASK),
    ):
        for prefix in ("", "/under"):
            client = TestClient(app, root_path=prefix + mounted)
            assert client.get(prefix + path, headers=bearer(token)).status_code == 200, (prefix, path)


@pytest.mark.parametrize(
    ("serve", "delete", "problem"),
    [
        ("", ERASE, "S3T_SERVE_TOKEN is not set"),
        (ASK, "", "S3T_DELETE_TOKEN is not set"),
        ("short", ERASE, "S3T_SERVE_TOKEN must be ASCII text of 16 or more"),
        (ASK, "a token with spaces in it", "without spaces"),
        (ASK, ASK, "are the same"),
    ],
)
def test_no_service_without_two_good_tokens(serve: str, delete: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        Tokens.from_environment({SERVE_TOKEN: serve, DELETE_TOKEN: delete})
    assert ASK not in str(refused.value)


def test_tokens_do_not_show(client: TestClient) -> None:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    assert ASK not in repr(tokens) and ERASE not in repr(tokens)


def test_a_chat_answer_has_openais_shape_and_names_the_live_set(client: TestClient, backend: FakeBackend) -> None:
    answer = ask(client, **CHAT, temperature=0, max_tokens=9, seed=4)
    document = answer.json()
    assert answer.status_code == 200
    assert (answer.headers["x-s3t-version"], answer.headers["x-s3t-depths"]) == ("7", "3,1")
    assert document["object"] == "chat.completion" and document["model"] == "alpaca"
    assert document["s3t"] == {"run": "alpaca", "version": 7, "depths": [3, 1], "stages": ["a", "b"]}
    assert document["system_fingerprint"] == answer.headers["x-s3t-fingerprint"] == fingerprint(["a", "b"])
    assert document["choices"][0]["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    (wish,) = backend.wishes
    assert wish.prompt == ({"role": "user", "content": "Hi"},)
    assert (wish.params.max_new_tokens, wish.params.temperature, wish.params.seed) == (9, 0.0, 4)


def test_a_fingerprint_tells_live_sets_apart() -> None:
    sets = [[], ["a"], ["a", "b"], ["b", "a"], ["ab"]]
    assert len({fingerprint(stages) for stages in sets}) == len(sets)
    assert fingerprint(["a", "b"]) == fingerprint(("a", "b"))


def test_text_parts_and_a_list_of_one_prompt_are_taken(client: TestClient, backend: FakeBackend) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ask(client, model="alpaca", messages=[{"role": "user", "content": parts}]).status_code == 200
    document = ask(client, "/v1/completions", model="alpaca", prompt=["Say it."]).json()
    assert document["choices"][0]["text"] == "Hello" and document["object"] == "text_completion"
    assert [wish.prompt for wish in backend.wishes] == [({"role": "user", "content": "ab"},), "Say it."]
    assert backend.wishes[0].params.temperature == 1.0
    assert len({ask(client, **CHAT) and backend.wishes[-1].params.seed for _ in range(4)}) > 1, (
        "no seed: not always the same"
    )


def test_another_model_is_not_found(client: TestClient) -> None:
    answer = ask(client, **{**CHAT, "model": "gpt"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_chat_stream(client: TestClient, backend: FakeBackend) -> None:
    answer = ask(client, **CHAT, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-s3t-version"] == "7"
    chunks = events(answer.text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
    assert len({chunk["id"] for chunk in chunks}) == 1 and backend.closed == 1


def test_a_text_stream(client: TestClient) -> None:
    chunks = events(ask(client, "/v1/completions", model="alpaca", prompt="x", stream=True).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello"


def test_a_stream_that_begins_anew_before_its_first_piece_is_one_answer(
    client: TestClient, backend: FakeBackend
) -> None:
    backend.events = [Started(7, (3,), ("a",)), Started(8, (1,), ("b",)), Piece("x"), Ended(Finish.STOP)]
    chunks = events(ask(client, **CHAT, stream=True).text)
    assert chunks[-1]["s3t"] == {"run": "alpaca", "version": 8, "depths": [1], "stages": ["b"]}
    assert "error" not in chunks[-1]


def test_a_stream_that_begins_anew_after_a_piece_ends_with_an_error(client: TestClient, backend: FakeBackend) -> None:
    old, new = Started(7, (3,), ("a",)), Started(8, (1,), ("b",))
    backend.events = [old, Piece("old"), new, Piece("new"), Ended(Finish.STOP)]
    text = ask(client, **CHAT, stream=True).text
    assert events(text)[-1]["error"]["code"] == "live_set_changed"
    assert "new" not in text
    assert backend.closed == 1


def test_refusals_before_a_stream_are_status_codes_and_later_ones_events(
    client: TestClient, backend: FakeBackend
) -> None:
    backend.fails = DataError("the text has 9999 tokens, but the model reads at most 512", "shorten the text")
    for stream in (False, True):
        answer = ask(client, **CHAT, stream=stream)
        assert answer.status_code == 400 and "9999 tokens" in answer.json()["error"]["message"]
    failure, backend.fails = backend.fails, None
    backend.events = [Started(7, (3,), ("a",)), failure]  # before a word was said
    assert ask(client, **CHAT, stream=True).status_code == 400
    backend.events = None
    backend.fails = LedgerError("the ledger postgresql://u:***@db refused", "check the database")
    for stream in (False, True):
        answer = ask(client, **CHAT, stream=stream)
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert "postgresql" not in answer.text, "what is wrong inside is not for callers"
    assert client.get("/healthz", headers=bearer(ASK)).status_code == 503
    backend.fails = None
    backend.events = [Started(7, (3,), ("a",)), Piece("x"), LedgerError("gone", "wait")]
    assert events(ask(client, **CHAT, stream=True).text)[-1]["error"]["type"] == "server_error"


def test_a_deletion_from_request_to_certificate(client: TestClient, backend: FakeBackend) -> None:
    answer = client.post("/v1/deletions", json={"ids": ["r1"], "subjects": ["p"]}, headers=bearer(ERASE))
    assert answer.status_code == 202 and answer.json()["request_id"] == "req-1" and answer.json()["run"] == "alpaca"
    assert backend.deleted[0].ids == ("r1",) and backend.deleted[0].subjects == ("p",)
    where = answer.headers["location"]
    assert client.get(where, headers=bearer(ERASE)).json()["state"] == "purged"
    early = client.get(f"{where}/certificate", headers=bearer(ERASE))
    assert (early.status_code, early.json()["error"]["code"]) == (404, "not_yet")
    backend.certified = '{"facts":{}}'
    assert client.get(f"{where}/certificate", headers=bearer(ERASE)).text == backend.certified
    assert client.get("/v1/deletions/other", headers=bearer(ERASE)).status_code == 404


def test_a_proof_is_handed_out_once_the_log_is_published(client: TestClient, backend: FakeBackend) -> None:
    for name, of in (("proof", "certificate"), ("receipt-proof", "receipt")):
        backend.certified = None
        early = client.get(f"/v1/deletions/req-1/{name}", headers=bearer(ERASE))
        assert (early.status_code, early.json()["error"]["code"]) == (404, "not_yet")
        backend.certified = "{}"
        answer = client.get(f"/v1/deletions/req-1/{name}", headers=bearer(ERASE))
        assert answer.text == f"proof of the {of} of req-1"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert client.get(f"/v1/deletions/other/{name}", headers=bearer(ERASE)).status_code == 404
        described = client.get("/openapi.json", headers=bearer(ERASE)).json()["paths"]
        assert "tlog-proof" in described["/v1/deletions/{request_id}/" + name]["get"]["description"]


def test_what_an_office_says_comes_with_a_deletion(client: TestClient, backend: FakeBackend) -> None:
    said = {"reference": "DSR-17", "requester": "Ann", "reason": "Article 17", "due": "2026-12-31"}
    assert client.post("/v1/deletions", json={"ids": ["r1"], **said}, headers=bearer(ERASE)).status_code == 202
    assert backend.deleted[0].details() == RequestDetails(
        "DSR-17", "Ann", "Article 17", "2026-12-31T23:59:59.999999+00:00"
    )
    for wrong in ({"due": "soon"}, {"reference": ""}, {"reason": "x" * 2001}, {"callback": "https://office.example"}):
        answer = client.post("/v1/deletions", json={"ids": ["r1"], **wrong}, headers=bearer(ERASE))
        assert answer.status_code == 400, answer.text
    assert len(backend.deleted) == 1


def test_deletions_are_listed_by_what_is_asked_for(client: TestClient, backend: FakeBackend) -> None:
    wanted = "state=purged&overdue=true&reference=DSR-17&due_before=2026-12-31&after=3&limit=5"
    document = client.get(f"/v1/deletions?{wanted}", headers=bearer(ERASE)).json()
    assert document["run"] == "alpaca" and document["more"] is False
    assert [each["request_id"] for each in document["deletions"]] == ["req-1"]
    assert backend.listed == DeletionFilter(
        state="purged", overdue=True, reference="DSR-17", due_before="2026-12-31", after=3, limit=5
    )
    for wrong in ("state=gone", "limit=0", "overdue=perhaps", "due_before=soon", "status=purged"):
        assert client.get(f"/v1/deletions?{wrong}", headers=bearer(ERASE)).status_code == 400, wrong


def test_a_deletion_of_nobody_changes_nothing(client: TestClient, backend: FakeBackend) -> None:
    assert client.post("/v1/deletions", json={"ids": ["nobody"]}, headers=bearer(ERASE)).status_code == 404
    backend.fails = DataError("nothing was named", "name ids or subjects")
    assert client.post("/v1/deletions", json={}, headers=bearer(ERASE)).status_code == 400
    assert client.post("/v1/deletions", json={"id": ["r1"]}, headers=bearer(ERASE)).status_code == 400
    assert backend.deleted == []


def test_a_body_beyond_the_limit_is_not_read(client: TestClient, backend: FakeBackend) -> None:
    large = b" " * (LARGEST_BODY + 1)
    assert client.post("/v1/completions", content=large, headers=bearer(ASK)).status_code == 413

    def pieces() -> Any:  # without a length
        for _ in range(5):
            yield b" " * 2**20

    assert client.post("/v1/completions", content=pieces(), headers=bearer(ASK)).status_code == 400
    assert backend.wishes == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"model": "lab", "prompt": "', "the body is not JSON: "),
        (b"[" * 100_000 + b"]" * 100_000, "cannot be read"),
        (b'{"model": "lab", "prompt": "x", "max_tokens": 1' + b"0" * 5000 + b"}", "cannot be read"),
        (b'{"model": "lab", "prompt": "\xff"}', "cannot be read"),
        (b'{"model": "lab", "prompt": "\\ud800"}', "'prompt' contains half a surrogate pair"),
        (b'{"model": "lab", "prompt": ["x", "\\udfff"]}', "'prompt' contains half a surrogate pair"),
        (b'{"model": "lab", "prompt": "x", "stop": ["\\ud800"]}', "'stop' contains half a surrogate pair"),
        (b'{"model": "lab", "prompt": "x", "\\ud800": 1}', "contains half a surrogate pair"),
        (
            b'{"model": "lab", "prompt": "x", "stop": ' + json.dumps(["x"] * 17).encode() + b"}",
            "List should have at most",
        ),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_refused_in_words(
    client: TestClient, backend: FakeBackend, body: bytes, words: str
) -> None:
    headers = {**bearer(ASK), "Content-Type": "application/json"}
    answer = client.post("/v1/completions", content=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request"), error
    assert words in error["message"] and "Value error" not in error["message"] and backend.wishes == []


def test_fields_nested_as_deeply_as_json_allows_are_no_fault_of_ours(client: TestClient, backend: FakeBackend) -> None:
    headers = {**bearer(ASK), "Content-Type": "application/json"}
    for depth in (300, 600, 900, 1_200):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        body = b'{"model": "lab", "prompt": "x", "metadata": ' + nested + b"}"
        assert client.post("/v1/completions", content=body, headers=headers).status_code in (200, 400, 404), depth


def test_a_name_with_half_a_surrogate_pair_deletes_nothing(client: TestClient, backend: FakeBackend) -> None:
    headers = {**bearer(ERASE), "Content-Type": "application/json"}
    answer = client.post("/v1/deletions", content=b'{"ids": ["r1", "\\ud800"]}', headers=headers)
    assert answer.status_code == 400 and backend.deleted == []
