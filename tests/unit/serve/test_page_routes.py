"""The page's endpoints: required tokens, answers and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from s3t_ray.ledger.values import Event, EventKind
from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.scheduler.scheduler import DEPTHS
from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, KINDS, SERVE_TOKEN, Tokens
from s3t_ray.serve.page.page_routes import page_app
from s3t_ray.serve.page.page_token import OneToken
from s3t_ray.serve.page.run_desk import MOST_POINTS, RunDesk, history_of
from tests.fakes import Cluster
from tests.unit.serve.asking import ASK, ERASE, bearer

OPEN_TO_ALL = {"/", "/ui/page.css", "/ui/page.js"}


@pytest.fixture
def client(cluster: Cluster) -> TestClient:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    return TestClient(page_app(RunDesk(cluster.run), tokens))


def test_every_route_but_the_page_itself_asks_for_a_token(client: TestClient) -> None:
    routes = [route for route in client.app.routes if isinstance(route, Route)]
    assert len(routes) == 12
    for route in routes:
        if route.path == "/ui/session":
            continue  # where a token is shown, or a session ends
        method = "POST" if "POST" in (route.methods or ()) else "GET"
        path = route.path.replace("{request_id}", "0" * 64)
        bare = client.request(method, path)
        if path in OPEN_TO_ALL:
            assert bare.status_code == 200
            assert "r3" not in bare.text and ASK not in bare.text
            continue
        assert bare.status_code == 401
        assert client.request(method, path, headers=bearer("wrong-token-0123456789")).status_code == 401
        assert client.request(method, path, headers={"authorization": f"Basic {ERASE}"}).status_code == 401
        asks, erases = (client.request(method, path, headers=bearer(token)).status_code for token in (ASK, ERASE))
        assert (asks == 403) == (path in ("/ui/deletions", "/ui/deletions/preview"))
        assert (erases == 403) == (path == "/ui/ask")


def test_nothing_from_elsewhere_may_be_loaded(client: TestClient) -> None:
    for path in OPEN_TO_ALL:
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "//" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


def test_status_and_history(client: TestClient, cluster: Cluster) -> None:
    status = client.get("/ui/status", headers=bearer(ASK)).json()
    assert (status["name"], status["settled"], status["answers"]) == (cluster.run.row.name, True, False)
    history = client.get("/ui/history", headers=bearer(ASK)).json()
    assert history["depths"][-1]["mean_depth"] == cluster.run.row.slices


def test_a_deletion_from_preview_to_certificate(client: TestClient, cluster: Cluster) -> None:
    wish = {"ids": ["r3"], "subjects": ["p4"]}
    impact = client.post("/ui/deletions/preview", json=wish, headers=bearer(ERASE)).json()
    assert impact["records"] == 5
    assert not cluster.run.ledger.deletions()
    answer = client.post("/ui/deletions", json=wish, headers=bearer(ERASE))
    assert (answer.status_code, answer.json()["records"]) == (202, 5)
    request = answer.json()["request_id"]
    early = client.get(f"/ui/deletions/{request}/certificate", headers=bearer(ASK))
    assert (early.status_code, early.json()["problem"][-22:]) == (409, "it has no certificate yet"[-22:])
    cluster.settle()
    text = client.get(f"/ui/deletions/{request}/certificate", headers=bearer(ASK)).text
    key = client.get("/ui/public.pem", headers=bearer(ASK)).content
    assert verify_certificate(text, key).facts.request_id == request
    kinds = [mark["kind"] for mark in client.get("/ui/history", headers=bearer(ASK)).json()["marks"]]
    assert kinds == ["accepted", "pruned", "purged", "restored"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"{}", 400, "names no record"),
        (b'{"ids": "r3"}', 400, "ids"),
        (b'{"ids": [3]}', 400, "ids"),
        (b'{"id": ["r3"]}', 400, "id"),
        (b'{"ids": ["nobody"]}', 404, "none of the"),
        (b'{"ids": ["' + b"x" * 2**22 + b'"]}', 400, "at most"),
    ],
)
def test_what_is_no_deletion_is_refused_with_its_fix(
    client: TestClient, cluster: Cluster, body: bytes, status: int, words: str
) -> None:
    answer = client.post("/ui/deletions", content=body, headers=bearer(ERASE))
    assert answer.status_code == status
    assert words in answer.json()["problem"] and answer.json()["fix"]
    assert not cluster.run.ledger.deletions()


def test_a_page_without_the_model_says_so(client: TestClient) -> None:
    answer = client.post("/ui/ask", json={"prompt": "Hello"}, headers=bearer(ASK))
    assert (answer.status_code, "--ask" in answer.json()["fix"]) == (400, True)


def test_one_token_opens_all_and_no_other_does() -> None:
    token = OneToken("secret")
    holder = token.holder("Bearer secret")
    assert holder is not None and holder == token.holder("bearer secret") and holder.opens == KINDS
    assert [token.holder(told) for told in ("Bearer secre", "Basic secret", "")] == [None] * 3


def event(seq: int, kind: str, shard: int | None = None, detail: str = "{}") -> Event:
    return Event(seq, f"2026-11-27T00:00:{seq % 60:02d}+00:00", kind, shard, detail)


def test_the_history_is_the_mean_over_the_shards() -> None:
    events = [
        event(0, DEPTHS, 0, '{"depths": [1, 2]}'),
        event(1, DEPTHS, 1, '{"depths": []}'),
        event(2, EventKind.DELETION_ACCEPTED),
    ]
    found = history_of(events)
    assert [(point.seconds, point.mean_depth) for point in found.depths] == [(0.0, 2.0), (1.0, 1.0)]
    assert [mark.kind for mark in found.marks] == ["accepted"]
    assert history_of([]).began_at is None


def test_a_long_history_is_thinned_out_to_its_ends() -> None:
    events: list[Any] = [event(0, DEPTHS, 0, f'{{"depths": [{number}]}}') for number in range(3 * MOST_POINTS)]
    depths = [point.mean_depth for point in history_of(events).depths]
    assert (len(depths), depths[0], depths[-1]) == (MOST_POINTS, 0, 3 * MOST_POINTS - 1)
    assert depths == sorted(depths)
