"""Several tokens: their own rights and quotas, and rotation without a restart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from s3t_ray.errors import ConfigError
from s3t_ray.serve.access.bearer_tokens import LOOK_SECONDS, TOKENS_FILE, Holder, Tokens
from s3t_ray.serve.http import make_app
from tests.fakes.serving import FakeBackend

ANN, BEN, ERASE = "ann-token-0123456789", "ben-token-0123456789", "erase-token-0123456789"


def entry(name: str, token: str, opens: str, more: str = "") -> str:
    return f"- {{name: {name}, sha256: {hashlib.sha256(token.encode()).hexdigest()}, opens: {opens}{more}}}\n"


def listed(path: Path, *entries: str) -> Path:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text("tokens:\n" + "".join(entries))
    os.utime(path, ns=(before + 10**9, before + 10**9))
    return path


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_tokens_come_and_go_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    file = listed(tmp_path / "tokens.yaml", entry("ann", ANN, "model"), entry("office", ERASE, "deletions"))
    tokens = Tokens([], file, clock)
    assert tokens.opens_model(f"Bearer {ANN}") and not tokens.opens_deletions(f"Bearer {ANN}")
    assert tokens.opens_deletions(f"Bearer {ERASE}") and not tokens.opens_model(f"Bearer {BEN}")
    listed(file, entry("ben", BEN, "model"), entry("office", ERASE, "deletions"))
    clock.now += LOOK_SECONDS
    assert tokens.opens_model(f"Bearer {BEN}") and tokens.holder(f"Bearer {ANN}") is None


def test_a_bad_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    file = listed(tmp_path / "tokens.yaml", entry("ann", ANN, "model"), entry("office", ERASE, "deletions"))
    tokens = Tokens([], file, clock)
    listed(file, f"- {{name: ben, token: {BEN}}}\n")
    clock.now += LOOK_SECONDS
    assert tokens.opens_model(f"Bearer {ANN}")
    assert "not a list of tokens" in caplog.text and BEN not in caplog.text
    file.unlink()
    clock.now += LOOK_SECONDS
    assert tokens.opens_model(f"Bearer {ANN}")


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ((entry("ann", ANN, "model"),), "no token gives access to deletions"),
        ((entry("office", ERASE, "deletions"),), "no token gives access to the model"),
        ((entry("ann", ANN, "model"), entry("ann", ERASE, "deletions")), "not unique: ann"),
        ((entry("ann", ANN, "model"), entry("office", ANN, "deletions")), "the same token"),
        ((entry("ann", ANN, "everything"),), "tokens.0.opens"),
        (("- nonsense: [\n",), "not a list of tokens: line"),
    ],
)
def test_a_service_does_not_start_on_bad_tokens(tmp_path: Path, entries: tuple[str, ...], problem: str) -> None:
    file = listed(tmp_path / "tokens.yaml", *entries)
    with pytest.raises(ConfigError, match=problem) as refused:
        Tokens.from_environment({TOKENS_FILE: str(file)})
    assert ANN not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml, which cannot be read"):
        Tokens.from_environment({TOKENS_FILE: str(tmp_path / "no.yaml")})


def test_a_quota_lets_through_what_it_says_and_tells_when_to_come_back() -> None:
    clock = Clock()
    holder = Holder("ann", hashlib.sha256(ANN.encode()).digest(), frozenset({"model"}), requests_per_minute=6)
    office = Holder("office", hashlib.sha256(ERASE.encode()).digest(), frozenset({"deletions"}))
    tokens = Tokens([holder, office], now=clock)
    client = TestClient(make_app(FakeBackend(), tokens))
    answers = [client.get("/v1/models", headers=bearer(ANN)) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429]
    assert answers[-1].headers["retry-after"] == "10"
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/healthz", headers=bearer(ERASE)).status_code == 200, "others are not held up"
    clock.now += 10
    assert client.get("/v1/models", headers=bearer(ANN)).status_code == 200
    assert client.get("/v1/models", headers=bearer(ANN)).status_code == 429
