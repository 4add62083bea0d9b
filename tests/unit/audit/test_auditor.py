"""An auditor with a copy of a run but without its secret: findings, signature, and no writes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from s3t_ray.audit.auditor import audit_copy, open_copy
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError, DataError, VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.values import StageState
from s3t_ray.proof.audit_statement import PREDICATE, AuditFacts, audit_envelope, read_audit, statement_about
from s3t_ray.proof.dsse import enveloped
from s3t_ray.run.log.published_log import published
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.store import Store
from s3t_ray.tlog.log_head import LogHead
from tests.e2e.test_frozen_runs import listed
from tests.fakes import FakeWorkers
from tests.fakes.command_line import s3t

AUDITOR = Keys(b"a" * 32)
OTHER = Keys(b"o" * 32)


@pytest.fixture
def copy(lived_origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run alone, elsewhere: no keys beside it."""
    monkeypatch.setattr("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0)
    shutil.copytree(lived_origin / "run", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def public_key(lived_origin: Path) -> bytes:
    return (lived_origin / "run.keys" / "public.pem").read_bytes()


def looked_at(copy: Path, public_key: bytes) -> AuditFacts:
    with open_copy(copy, None) as run:
        return audit_copy(run, public_key)


def test_a_good_run_is_stated_with_its_log_and_what_was_not_checked(
    copy: Path, public_key: bytes, lived_origin: Path
) -> None:
    before = listed(copy)
    facts = looked_at(copy, public_key)
    assert listed(copy) == before
    assert (facts.problems, facts.result, facts.records) == ((), "verified", 28)
    with Run.open(lived_origin / "run", read_only=True) as run:
        assert (facts.entries, facts.head) == (run.ledger.log_head().sequence, run.ledger.log_head().hash)
        note = published(run)
        assert note is not None
        head = LogHead.parse(note.text)
        assert (head.size, head.root.hex()) == (facts.entries, facts.root)
        assert facts.stages == len(run.wanted_stages())
    assert any("the keyed digests" in line for line in facts.not_checked)
    assert any("no stage was trained again" in line for line in facts.not_checked)


class Hashing(FakeWorkers):
    """In the place of the worker groups: the trainer that hashes what it would learn from."""

    def __init__(self, config: Config, base: str, groups: int) -> None:
        super().__init__(Store.open(config.storage.uri), groups)


def test_stages_are_trained_again_elsewhere_from_the_copys_rows(
    copy: Path, public_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[str] = []

    def workers(config: Config, base: str, groups: int) -> Hashing:
        places.append(config.storage.uri)
        return Hashing(config, base, groups)

    monkeypatch.setattr("s3t_ray.audit.replay.connected", lambda address: nullcontext())
    monkeypatch.setattr("s3t_ray.audit.replay.group_for", workers)
    before = listed(copy)
    with open_copy(copy, None) as run:
        facts = audit_copy(run, public_key, replay=3)
        live = {row.id: row.adapter_sha256 for row in run.ledger.stages(state=StageState.LIVE)}
    assert listed(copy) == before
    (place,) = places
    assert not Path(place).exists() and not Path(place).is_relative_to(copy)
    assert facts.result == "verified" and len(facts.replayed) == 3
    assert {(each.stage, each.adapter_sha256) for each in facts.replayed} <= live.items()
    assert not any("no stage was trained again" in line for line in facts.not_checked)
    grown(a_stage(copy) / ADAPTER_FILE)
    with open_copy(copy, None) as run:
        facts = audit_copy(run, public_key, replay=len(live))
    assert sorted(each.verdict for each in facts.replayed) == ["differs"] + ["equal"] * (len(live) - 1)


def a_stage(copy: Path) -> Path:
    with open_copy(copy, None) as run:
        return copy / layout.stage_folder(min(run.wanted_stages()))


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def rewritten(copy: Path, statement: str) -> None:
    with sqlite3.connect(copy / "ledger.db") as ledger:
        assert ledger.execute(statement).rowcount
    ledger.close()


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "an adapter": (lambda copy: grown(a_stage(copy) / ADAPTER_FILE), "is not what was published"),
    "a slice": (lambda copy: grown(next((copy / "slices" / "0").rglob("*.parquet"))), "its bytes are not those"),
    "a stage taken out": (lambda copy: shutil.rmtree(a_stage(copy)), "is missing"),
    "a foreign file": (lambda copy: (copy / "stages" / "notes.txt").write_text("x"), "notes.txt"),
    "the log cut short": (
        lambda copy: rewritten(copy, "DELETE FROM s3t_log WHERE kind = 'receipt'"),
        "the chain breaks",
    ),
    "an entry": (
        lambda copy: rewritten(copy, "UPDATE s3t_log SET entry = replace(entry, '\"records\":1', '\"records\":2')"),
        "does not have a valid signature",
    ),
    "a slice's digest": (
        lambda copy: rewritten(copy, "UPDATE s3t_slices SET digest = replace(digest, 'a', 'b') WHERE shard = 0"),
        "retained rows, but the ledger has",
    ),
    "a row of another type": (
        lambda copy: rewritten(copy, "UPDATE s3t_stages SET slices = 'x'"),
        "cannot be understood",
    ),
}


@pytest.mark.parametrize("kind", sorted(TAMPERED))
def test_what_was_changed_in_the_copy_is_found(copy: Path, public_key: bytes, kind: str) -> None:
    change, reason = TAMPERED[kind]
    change(copy)
    facts = looked_at(copy, public_key)
    assert facts.result == "failed"
    assert any(reason in problem for problem in facts.problems), facts.problems


def test_the_runs_key_comes_from_elsewhere_and_counts(copy: Path) -> None:
    facts = looked_at(copy, OTHER.public_key_pem)
    assert facts.result == "failed" and any("signed by another key" in problem for problem in facts.problems)


def test_a_forged_beginning_of_the_log_excuses_no_stage(copy: Path, public_key: bytes) -> None:
    """Who says that an older version made all of it."""
    rewritten(
        copy,
        'UPDATE s3t_log SET entry = replace(replace(entry, \'"sealed":"ingest"\', \'"sealed":"upgrade"\'), '
        "'\"ledger_sequence\":0', '\"ledger_sequence\":9999999') WHERE kind = 'run'",
    )
    for fence in (copy / "fences").glob("*"):
        fence.unlink()
    assert any("a worker that was suspended" in problem for problem in looked_at(copy, public_key).problems)


def test_the_statement_is_the_auditors_and_about_this_run(copy: Path, public_key: bytes) -> None:
    facts = looked_at(copy, public_key)
    text = audit_envelope(facts, AUDITOR)
    assert read_audit(text, AUDITOR.public_key_pem, public_key) == facts
    with pytest.raises(VerificationFailed, match="no valid signature"):
        read_audit(text, public_key)
    with pytest.raises(VerificationFailed, match="a run with another key"):
        read_audit(text, AUDITOR.public_key_pem, OTHER.public_key_pem)
    told = json.loads(json.dumps(statement_about(facts)))
    for change, reason in (
        ({"predicateType": "urn:else"}, f"is of type 'urn:else', not {PREDICATE}"),
        ({"predicate": {**told["predicate"], "result": "good"}}, "cannot be read: result"),
        ({"subject": []}, "contradicts itself"),
    ):
        with pytest.raises(VerificationFailed, match=reason):
            read_audit(enveloped({**told, **change}, AUDITOR), AUDITOR.public_key_pem)


def pem_key(path: Path, key: Ed25519PrivateKey, mode: int = 0o600) -> str:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(mode)
    return str(path)


def test_the_commands(copy: Path, public_key: bytes, tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    key, pem, out = pem_key(tmp_path / "auditor.key", private), str(tmp_path / "run.pem"), str(tmp_path / "out.json")
    Path(pem).write_bytes(public_key)
    own = str(tmp_path / "auditor.pem")
    Path(own).write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    asked = ("verify", str(copy), "--as-auditor", key, "--public-key", pem, "--out", out)
    made = s3t(*asked)
    assert made.exit_code == 0, made.output
    assert "not checked: the keyed digests" in made.stdout and "verified" in made.stdout
    again = s3t(*asked)
    assert again.exit_code == DataError.exit_code and "already exists" in again.stderr
    told = s3t("check-statement", out, "--auditor-key", own, "--public-key", pem)
    assert told.exit_code == 0 and "28 records" in told.stdout
    assert json.loads(s3t("check-statement", out, "--auditor-key", own, "--json").stdout)["result"] == "verified"
    refused = s3t("check-statement", out, "--auditor-key", pem)
    assert refused.exit_code == VerificationFailed.exit_code and "no valid signature" in refused.stderr
    refused = s3t("check-certificate", out, "--public-key", own)
    assert refused.exit_code == VerificationFailed.exit_code and PREDICATE in refused.stderr
    (copy / "slices" / "junk").write_text("x")
    failed = s3t(*asked[:-1], str(tmp_path / "second.json"))
    assert failed.exit_code == VerificationFailed.exit_code
    told = s3t("check-statement", str(tmp_path / "second.json"), "--auditor-key", own)
    assert told.exit_code == VerificationFailed.exit_code and "slices/junk" in told.stdout


def test_a_key_that_will_not_do_is_told_before_anything_is_checked(
    copy: Path, public_key: bytes, tmp_path: Path
) -> None:
    (tmp_path / "run.pem").write_bytes(public_key)
    private = Ed25519PrivateKey.generate()
    rsa = generate_private_key(65537, 2048)
    files = {
        "none": (None, 0o600, "cannot be read"),
        "open": (private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o644, "mode 0644"),
        "junk": (b"junk", 0o600, "not a PEM private key"),
        "locked": (
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            0o600,
            "without a password",
        ),
        "rsa": (rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600, "not an Ed25519 key"),
    }
    for name, (data, mode, reason) in files.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
            path.chmod(mode)
        told = s3t("verify", str(copy), "--as-auditor", str(path), "--public-key", str(tmp_path / "run.pem"),
                   "--out", str(tmp_path / "out"))  # fmt: skip
        assert told.exit_code == ConfigError.exit_code and reason in told.stderr
    assert s3t("verify", str(copy), "--as-auditor", "x").exit_code == 2
    assert s3t("verify", str(copy), "--base", "x").exit_code == 2
