"""The programs of `examples/` that need no run of their own: each does what its first lines say."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from examples import ask_over_http, check_a_certificate, choose_a_budget
from s3t_ray.config.load import load_config
from s3t_ray.data.readers.read import read_records
from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.http import make_app
from tests.fakes.serving import FakeBackend
from tests.frozen import CERTIFICATE, PUBLIC_KEY, FrozenRun, frozen_runs
from tests.unit.serve.asking import ASK, ERASE

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_page_lists_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".yaml", ".csv"}}
    assert {name for name in files if f"examples/{name}" not in page} == set()


def test_a_budget_is_chosen_by_the_closed_form() -> None:
    table = choose_a_budget.table(5, 4)
    assert [round(deletions, 1) for _, deletions, _ in table] == [45.7, 58.6, 66.4, 72.0]
    assert [stages for _, _, stages in table] == [20, 40, 60, 80]


def test_own_columns_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    config = load_config("examples/own_columns.yaml")
    records = list(read_records(config.data, config.task))
    assert [record.id for record in records] == [f"T-{number}" for number in range(1, 7)]
    assert [record.subject for record in records].count("ann@example.org") == 2


@pytest.fixture(scope="module", params=frozen_runs(), ids=lambda frozen: frozen.name)
def thawed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    frozen: FrozenRun = request.param
    return frozen.thaw(tmp_path_factory.mktemp("frozen"))


def test_an_outsider_checks_a_certificate(thawed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, key = (thawed / CERTIFICATE).read_text(), (thawed / PUBLIC_KEY).read_bytes()
    assert check_a_certificate.check(document, key)
    changed = json.loads(document)
    changed["facts"]["sequence"] += 1
    assert not check_a_certificate.check(json.dumps(changed), key)


@pytest.fixture
def service() -> Iterator[tuple[str, FakeBackend]]:
    backend = FakeBackend()
    app = make_app(backend, Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE}))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # so that callers wait until the server accepts them
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", backend
        server.should_exit = True
        thread.join()


def test_the_service_is_asked_and_told_to_delete(service: tuple[str, FakeBackend]) -> None:
    url, backend = service
    text, fingerprint = ask_over_http.ask(url, ASK, "Say hello.")
    assert text == "Hello" and fingerprint.startswith("s3t-")
    assert ask_over_http.delete(url, ERASE, "ann@example.org")
    assert [list(asked.subjects) for asked in backend.deleted] == [["ann@example.org"]]
