"""Signing in to the page: the cookie, what it opens, and requests that other pages forge."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, LOOK_SECONDS, SERVE_TOKEN, Tokens
from s3t_ray.serve.http import make_front_app
from s3t_ray.serve.page.page_sessions import IDLE_SECONDS, LONGEST_SECONDS, MOST_SESSIONS, Sessions
from s3t_ray.serve.page.page_token import OneToken
from s3t_ray.serve.page.run_desk import RunDesk
from tests.fakes import Cluster
from tests.fakes.serving import FakeBackend
from tests.unit.serve.asking import ASK, ERASE, bearer
from tests.unit.serve.test_bearer_tokens import Clock, entry, listed

OWN = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
WISH = {"ids": ["r3"]}


@pytest.fixture
def client(cluster: Cluster) -> TestClient:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    return TestClient(make_front_app(FakeBackend(), tokens, RunDesk(cluster.run)))


def sign_in(client: TestClient, token: str) -> str:
    answer = client.post("/ui/session", json={"token": token}, headers=OWN)
    assert answer.status_code == 204, answer.text
    return str(answer.headers["set-cookie"])


def cookie_of(client: TestClient) -> dict[str, str]:
    return {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


def test_a_cookie_stands_for_the_token_and_no_script_or_other_site_has_it(client: TestClient) -> None:
    cookie = sign_in(client, ERASE)
    assert ERASE not in cookie
    flags = [part.strip().lower() for part in cookie.split(";")[1:]]
    assert {"httponly", "samesite=strict", "path=/ui"} <= set(flags) and "secure" not in flags
    assert client.get("/ui/status").json()["deletes"] is True
    assert client.post("/ui/deletions/preview", json=WISH, headers=OWN).json()["records"] == 1
    assert client.post("/ui/ask", json={"prompt": "Hi"}, headers=OWN).status_code == 403
    assert client.delete("/ui/session", headers=OWN).status_code == 204
    assert client.get("/ui/status").status_code == 401


def test_the_cookie_is_kept_to_tls_where_the_browser_sees_tls(client: TestClient) -> None:
    own = {"origin": "https://testserver"}
    assert "secure" in client.post("/ui/session", json={"token": ASK}, headers=own).headers["set-cookie"].lower()


def test_a_stolen_name_is_worth_nothing_after_the_end(client: TestClient) -> None:
    sign_in(client, ERASE)
    stolen = cookie_of(client)
    thief = TestClient(client.app)
    assert thief.get("/ui/status", headers=stolen).status_code == 200
    client.delete("/ui/session", headers=OWN)
    assert thief.get("/ui/status", headers=stolen).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_what_another_page_forges_changes_nothing(
    client: TestClient, cluster: Cluster, headers: dict[str, str]
) -> None:
    assert client.post("/ui/session", json={"token": ERASE}, headers=headers).status_code == 403
    sign_in(client, ERASE)
    for path in ("/ui/deletions", "/ui/deletions/preview"):
        assert client.post(path, json=WISH, headers=headers).status_code == 401
    assert client.delete("/ui/session", headers=headers).status_code == 403
    assert not cluster.run.ledger.deletions()
    assert client.post("/ui/deletions", json=WISH, headers=OWN).status_code == 202


def test_a_second_token_adds_its_rights_and_ends_the_first_name(client: TestClient) -> None:
    sign_in(client, ASK)
    before = cookie_of(client)
    assert client.post("/ui/deletions/preview", json=WISH, headers=OWN).status_code == 403
    sign_in(client, ERASE)
    assert TestClient(client.app).get("/ui/status", headers=before).status_code == 401
    assert client.post("/ui/deletions/preview", json=WISH, headers=OWN).status_code == 200
    assert client.post("/ui/ask", json={"prompt": "Hi"}, headers=OWN).status_code == 400  # opened; no model here
    assert client.post("/ui/session", json={"token": "wrong-token-0123456789"}, headers=OWN).status_code == 401
    assert client.get("/ui/status").status_code == 200, "a slip does not sign out"


def test_the_page_is_at_the_root_and_the_rest_of_the_service_wants_a_token_as_ever(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "<title>s3t_ray" in page.text
    sign_in(client, ERASE)
    for path in ("/healthz", "/openapi.json", "/docs", "/v1/deletions/req-1", "/else"):
        assert client.get(path).status_code == 401, "the page's cookie opens the page alone"
    assert client.get("/healthz", headers=bearer(ASK)).status_code == 200


def test_under_a_prefix_the_address_ends_in_a_slash(cluster: Cluster) -> None:
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    client = TestClient(make_front_app(FakeBackend(), tokens, RunDesk(cluster.run)), root_path="/under")
    bare = client.get("/under", follow_redirects=False)
    assert (bare.status_code, bare.headers["location"]) == (307, "/under/")
    assert client.get("/under/").status_code == client.get("/under/ui/page.js").status_code == 200
    assert "path=/under/ui" in sign_in_under(client).lower()
    assert client.get("/under/ui/status").status_code == 200


def sign_in_under(client: TestClient) -> str:
    return str(client.post("/under/ui/session", json={"token": ASK}, headers=OWN).headers["set-cookie"])


def test_a_withdrawn_token_ends_its_sessions(tmp_path: Path) -> None:
    clock = Clock()
    file = listed(tmp_path / "tokens.yaml", entry("ann", ASK, "model"), entry("office", ERASE, "deletions"))
    tokens = Tokens([], file, clock)
    sessions = Sessions(tokens, clock)
    name = sessions.begin(ASK)
    assert name is not None and [holder.name for holder in sessions.holders(name)] == ["ann"]
    listed(file, entry("ann", "another-" + ASK, "model"), entry("office", ERASE, "deletions"))
    clock.now += LOOK_SECONDS
    assert sessions.holders(name) == ()


def test_sessions_rest_and_end() -> None:
    clock = Clock()
    sessions = Sessions(OneToken("secret"), clock)
    name = sessions.begin("secret")
    assert name is not None and sessions.begin("secre") is None
    for _ in range(int(LONGEST_SECONDS // (IDLE_SECONDS - 1))):
        clock.now += IDLE_SECONDS - 1
        assert sessions.holders(name)
    clock.now += IDLE_SECONDS - 1
    assert not sessions.holders(name), "however busy, it ends"
    idle = sessions.begin("secret")
    assert idle is not None
    clock.now += IDLE_SECONDS + 1
    assert not sessions.holders(idle)


def test_a_crowd_of_sessions_takes_no_more_room() -> None:
    clock = Clock()
    sessions = Sessions(OneToken("secret"), clock)
    names = []
    for _ in range(MOST_SESSIONS + 1):
        clock.now += 1e-3
        names.append(sessions.begin("secret") or "")
    assert [bool(sessions.holders(name)) for name in (names[0], names[1], names[-1])] == [False, True, True]


def test_the_pages_questions_are_held_to_the_tokens_quota(cluster: Cluster, tmp_path: Path) -> None:
    file = listed(
        tmp_path / "tokens.yaml",
        entry("ann", ASK, "model"),
        entry("office", ERASE, "deletions", ", requests_per_minute: 2"),
    )
    client = TestClient(make_front_app(FakeBackend(), Tokens([], file), RunDesk(cluster.run)))
    sign_in(client, ERASE)
    for _ in range(5):
        assert client.get("/ui/status").status_code == 200, "looking is free: the page looks every two seconds"
    got = [client.post("/ui/deletions/preview", json=WISH, headers=OWN).status_code for _ in range(3)]
    assert got == [200, 200, 429]
