"""Callbacks against a real receiver on this machine: signed, in order, again until taken, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.errors import ConfigError
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.run import deletion
from s3t_ray.run.status import status
from s3t_ray.serve.callbacks.courier import LONGEST_PAUSE_SECONDS, LOOK_SECONDS, Courier
from s3t_ray.serve.callbacks.receivers import CALLBACKS_FILE, Receiver, receivers_from_environment
from s3t_ray.serve.callbacks.safe_post import CallbackFailed, is_outside, post
from tests.fakes import Cluster

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
STATES = ["accepted", "pruned", "purged", "restored"]


@dataclass
class Post:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def state(self) -> str:
        return str(self.json["data"]["state"])


@dataclass
class Office:
    """A real HTTP receiver. `answers`: the statuses it gives, then 204."""

    answers: list[int] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/deletions?from=s3t"

    def receiver(self, **more: Any) -> Receiver:
        return Receiver(**{"name": "office", "url": self.url, "secrets": (SECRET,), "private": True, **more})


@pytest.fixture
def office() -> Iterator[Office]:
    made = Office()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.posts.append(Post(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(made.answers.pop(0) if made.answers else 204)
            self.send_header("location", f"http://127.0.0.1:{made.port}/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def is_signed(sent: Post, key: bytes) -> bool:
    """As a receiver checks it, by the text of the standard."""
    said = f"{sent.headers['webhook-id']}.{sent.headers['webhook-timestamp']}.".encode() + sent.body
    wanted = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in sent.headers["webhook-signature"].split(" ")


def test_each_state_of_each_deletion_is_told_once_and_in_order(cluster: Cluster, office: Office) -> None:
    courier = Courier(cluster.run, office.receiver(), now=lambda: 1_800_000_000.5)
    due = "2999-01-01T00:00:00.000000+00:00"
    details = RequestDetails("DSR-17", "Ann Example", "Article 17", due)
    receipt = deletion.accept(cluster.run, [], ["p4"], details=details)
    assert len(receipt.shards) > 1, "one event for each shard, one message"
    assert courier.deliver() == LOOK_SECONDS
    cluster.settle()
    courier.deliver()
    courier.deliver()
    assert [sent.state for sent in office.posts] == STATES
    assert len({sent.headers["webhook-id"] for sent in office.posts}) == 4
    assert all(is_signed(sent, KEY) and not is_signed(sent, KEY[::-1]) for sent in office.posts)
    first = office.posts[0]
    assert (first.path, first.headers["webhook-timestamp"]) == ("/deletions?from=s3t", "1800000000")
    assert first.json["type"] == "deletion.accepted" and first.json["timestamp"] == receipt.accepted_at
    assert first.json["data"] == {
        "run": cluster.run.row.name,
        "request_id": receipt.request_id,
        "state": "accepted",
        "records": receipt.records,
        "references": ["DSR-17"],
        "due_at": due,
    }
    assert not [sent for sent in office.posts if b"Ann" in sent.body or b"p4" in sent.body]


def test_what_fails_is_told_again_under_the_same_id_and_nothing_overtakes_it(cluster: Cluster, office: Office) -> None:
    courier = Courier(cluster.run, office.receiver())
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    office.answers += [500, 404, 302, 429]
    pauses = [courier.deliver() for _ in range(4)]
    assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(pauses, start=1))
    assert [sent.state for sent in office.posts] == ["accepted"] * 4, "and a redirect was not followed"
    (failure,) = status(cluster.run).failures
    assert (failure.kind, failure.attempts) == ("callback", 4) and "office: the receiver answered 429" in failure.error
    courier.deliver()
    assert [sent.state for sent in office.posts[4:]] == STATES
    assert len({sent.headers["webhook-id"] for sent in office.posts[:5]}) == 1
    assert status(cluster.run).failures == ()


def test_pauses_have_an_end(cluster: Cluster, office: Office) -> None:
    courier = Courier(cluster.run, office.receiver())
    deletion.accept(cluster.run, ["r3"], [])
    office.answers += [500] * 12
    assert max([courier.deliver() for _ in range(12)]) <= LONGEST_PAUSE_SECONDS


def test_a_sender_that_is_killed_anywhere_loses_nothing(cluster: Cluster, office: Office) -> None:
    """Killed each time between two lines: before a message is sent, and before the ledger knows that it was taken."""
    Courier(cluster.run, office.receiver())  # named for the first time: it stands here
    deletion.accept(cluster.run, [], ["p4"])
    cluster.settle()
    callbacks = cluster.run.ledger.callbacks
    taken, left = callbacks.taken, 0

    class Killed(BaseException):
        pass

    def killed_in_time(name: str, position: int) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        taken(name, position)

    callbacks.taken = killed_in_time  # type: ignore[method-assign]
    for moves in (0, 1, 1, 0, 1):
        left = moves
        with pytest.raises(Killed):
            Courier(cluster.run, office.receiver()).deliver()
    callbacks.taken = taken  # type: ignore[method-assign]
    Courier(cluster.run, office.receiver()).deliver()
    assert [sent.state for sent in office.posts] == [
        *("accepted", "accepted", "pruned"),  # the first two deaths
        *("pruned", "purged", "purged", "purged", "restored"),  # and so on
        "restored",
    ]
    of_state: dict[str, set[str]] = {}
    for sent in office.posts:
        of_state.setdefault(sent.state, set()).add(sent.headers["webhook-id"])
    assert list(of_state) == STATES and all(len(ids) == 1 for ids in of_state.values())


def test_a_receiver_begins_where_the_history_ends(cluster: Cluster, office: Office) -> None:
    deletion.accept(cluster.run, ["r3"], [])
    courier = Courier(cluster.run, office.receiver(states=("restored",)))
    deletion.accept(cluster.run, ["r4"], [])
    cluster.settle()
    courier.deliver()
    assert [sent.state for sent in office.posts] == ["restored", "restored"]


def test_while_a_secret_is_exchanged_both_sign(cluster: Cluster, office: Office) -> None:
    new = bytes(range(32, 64))
    courier = Courier(cluster.run, office.receiver(secrets=(SECRET, base64.b64encode(new).decode())))
    deletion.accept(cluster.run, ["r3"], [])
    courier.deliver()
    assert is_signed(office.posts[0], KEY) and is_signed(office.posts[0], new)


def send(url: str, private: bool = False, headers: Mapping[str, str] = {}) -> None:
    post(url, b"{}", headers, private, ssl.create_default_context())


def test_a_name_that_leads_inside_is_not_called(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"):
        with pytest.raises(CallbackFailed, match=r"private address|cannot be resolved"):
            send(f"https://{host}:{office.port}/")
    with pytest.raises(CallbackFailed, match="only https"):
        send(office.url)

    def resolved(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", ("93.184.215.14", port)), (2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr("socket.getaddrinfo", resolved)
    with pytest.raises(CallbackFailed, match="private address"):
        send("https://office.example/")
    assert office.posts == []


def test_the_address_that_was_checked_is_the_one_that_is_called(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to the outside, and a moment later to the inside."""
    called: list[tuple[str, int]] = []
    answers = iter([[(2, 1, 6, "", ("93.184.215.14", 443))], [(2, 1, 6, "", ("127.0.0.1", office.port))]])
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: next(answers))

    def connect(address: tuple[str, int], timeout: float) -> None:
        called.append(address)
        raise OSError

    monkeypatch.setattr("socket.create_connection", connect)
    with pytest.raises(CallbackFailed, match="cannot be reached"):
        send("https://office.example/")
    assert called == [("93.184.215.14", 443)]


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_inside_and_outside(address: str, outside: bool) -> None:
    assert is_outside(address) is outside


def test_a_receiver_without_a_certificate_of_its_name_is_not_told(office: Office) -> None:
    with pytest.raises(CallbackFailed, match="cannot be reached"):
        send(office.url.replace("http:", "https:"), private=True)
    assert office.posts == []


GOOD = f"name: office, url: https://office.example/x, secrets: [{SECRET}]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"receivers: [{{{GOOD}}}, {{{GOOD}}}]", "twice"),
        (f"receivers: [{{{GOOD.replace('https', 'http')}}}]", "no https address"),
        (f"receivers: [{{{GOOD.replace('https://office', 'ftp://office')}}}]", "an address must be https"),
        (f"receivers: [{{{GOOD.replace('https://', 'https://u:p@')}}}]", "without a user"),
        (f"receivers: [{{{GOOD.replace(SECRET, 'c2hvcnQ=')}}}]", "24 bytes"),
        (f"receivers: [{{{GOOD.replace(SECRET, 'no base64!' * 5)}}}]", "24 bytes"),
        (f"receivers: [{{{GOOD}, states: [gone]}}]", "states"),
        ("receivers: [", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_and_its_secrets_are_not_told(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "callbacks.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        receivers_from_environment({CALLBACKS_FILE: str(file)})
    assert not any(secret in str(refused.value) for secret in (SECRET, "c2hvcnQ=", "no base64!"))


def test_a_good_file_is_read_and_shows_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "callbacks.yaml"
    file.write_text(f"receivers: [{{{GOOD}}}]")
    (found,) = receivers_from_environment({CALLBACKS_FILE: str(file)})
    assert (found.keys, list(found.states)) == ((KEY,), STATES) and SECRET not in repr(found)
    assert receivers_from_environment({}) == ()
