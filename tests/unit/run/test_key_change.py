"""A changed signing key: earlier signatures stay valid, and former keys can no longer sign."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger import keys as ledger_keys
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.signers.signing_key import FileSigner
from s3t_ray.proof.handed_out import check_handed_out, check_proofs, keys_among
from s3t_ray.proof.key_entry import KeyEntry
from s3t_ray.proof.receipt import SignedReceipt
from s3t_ray.proof.run_log import parse_entry, verify_chain
from s3t_ray.proof.signed_entry import signed
from s3t_ray.run import deletion
from s3t_ray.run.log import key_change
from s3t_ray.run.log.issued_certificates import chain_of, key_changes_of, receipt_of
from s3t_ray.run.log.key_change import change_key
from s3t_ray.run.log.published_log import proof_of, publish
from s3t_ray.run.run import Run
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.log_proof import LogProof
from tests.fakes import Cluster, fake_base, small_config, write_records


class Killed(BaseException):
    """Nothing of ours catches it."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has restored a deletion."""
    folder = tmp_path_factory.mktemp("origin")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    cluster.run.close()
    return folder


@pytest.fixture
def run(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0)
    shutil.copytree(origin / "run", tmp_path / "run")
    shutil.copytree(origin / "run.keys", tmp_path / "run.keys")
    with Run.open(tmp_path / "run") as opened:
        yield opened


def chain(run: Run) -> list[str]:
    return [row.text for row in run.ledger.log()]


def test_the_signing_key_is_apart_from_the_secret_that_hides_ids(tmp_path: Path) -> None:
    made = Keys.load_or_create(tmp_path)
    held = tmp_path / "signing.key"
    assert stat.S_IMODE(held.stat().st_mode) == 0o600
    assert FileSigner(held.read_bytes()).public_key == made.public_key
    derived = Keys((tmp_path / "master.key").read_bytes())
    assert derived.public_key != made.public_key
    assert derived.key_check == made.key_check and derived.id_hmac("r1") == made.id_hmac("r1")
    held.unlink()  # as a run of an older version has it
    assert Keys.load_or_create(tmp_path).public_key == derived.public_key
    held.write_bytes(bytes(31))
    held.chmod(0o600)
    with pytest.raises(LedgerError, match="31 bytes"):
        Keys.load(tmp_path)
    held.chmod(0o644)
    with pytest.raises(LedgerError, match="mode 0644"):
        Keys.load(tmp_path)


def test_what_was_signed_before_and_after_is_checked_with_any_of_the_keys(run: Run) -> None:
    pems = [run.keys.public_key_pem]
    before = proof_of(run, 2)
    change_key(run, "rotation")
    pems.append(run.keys.public_key_pem)
    receipt = deletion.accept(run, ["r7"], [])
    change_key(run, "hand-over", "Example Trust Ltd")
    pems.append(run.keys.public_key_pem)
    deletion.accept(run, ["r9"], [])
    publish(run)
    assert len(set(pems)) == 3
    assert [row.kind for row in run.ledger.log()][4:] == ["key", "receipt", "key", "receipt"]
    changes = key_changes_of(run)
    for pem in pems:
        verify_chain(chain(run), pem, run.ledger.log_head())
        for number, proof in ((2, before), (2, proof_of(run, 2)), (6, proof_of(run, 6))):
            texts = [chain(run)[number - 1], *changes]
            entries, _ = check_handed_out(texts, pem)
            assert check_proofs([proof], entries, keys=keys_among(texts, pem))[0].entry == number
    assert receipt_of(run, receipt.request_id) == chain(run)[5]
    assert len(chain_of(run)) == 8
    with pytest.raises(VerificationFailed, match="signed by another key"):
        check_handed_out([chain(run)[5]], pems[0])  # without the change that leads to its key
    with pytest.raises(VerificationFailed, match="signed by another key"):
        verify_chain(chain(run), Keys(b"x" * 32).public_key_pem)


def test_an_audit_passes_and_knows_the_key_that_the_auditor_had(run: Run, tmp_path: Path) -> None:
    pem = run.keys.public_key_pem
    change_key(run, "rotation")
    deletion.accept(run, ["r7"], [])
    publish(run)
    run.close()
    with Run.open(tmp_path / "run", read_only=True) as opened:
        assert audit(opened, trusted_key=pem).problems == ()
        assert audit(opened, trusted_key=opened.keys.public_key_pem).problems == ()
        assert "is not the trusted one" in audit(opened, trusted_key=Keys(b"x" * 32).public_key_pem).problems[0]


def test_a_change_of_key_that_was_edited_is_a_finding(run: Run, tmp_path: Path) -> None:
    pem = run.keys.public_key_pem
    change_key(run, "rotation")
    deletion.accept(run, ["r7"], [])
    publish(run)
    run.close()
    with sqlite3.connect(tmp_path / "run" / "ledger.db") as connection:
        connection.execute("UPDATE s3t_log SET entry = replace(entry, 'rotation', 'hand-over') WHERE kind = 'key'")
    connection.close()
    with Run.open(tmp_path / "run", read_only=True) as opened:
        told = audit(opened, trusted_key=pem).problems
        assert any(line.startswith("key 5: ") for line in told), told
        assert any("is not the trusted one" in line for line in told)


def test_a_process_with_the_former_key_is_refused_until_it_restarts(run: Run, tmp_path: Path) -> None:
    with Run.open(tmp_path / "run") as late:
        assert late.keys.public_key == run.keys.public_key
        change_key(run, "rotation")
        with pytest.raises(LedgerError, match="signing key was changed"):
            deletion.accept(late, ["r7"], [])
        assert len(late.ledger.deletions()) == 1
    with Run.open(tmp_path / "run") as again:
        deletion.accept(again, ["r7"], [])
        verify_chain(chain(again), again.keys.public_key_pem, again.ledger.log_head())


def test_a_stolen_former_key_cannot_continue_the_log(run: Run) -> None:
    stolen = FileSigner((run.location.keys_dir / "signing.key").read_bytes())
    change_key(run, "rotation")
    texts = chain(run)
    pem = run.keys.public_key_pem
    last = parse_entry(texts[-1])
    receipt = parse_entry(texts[1])
    assert isinstance(receipt, SignedReceipt) and isinstance(last, KeyEntry)
    facts = receipt.facts.model_copy(update={"sequence": 6, "previous": last.hash})
    forged = signed(SignedReceipt, stolen, facts=facts).to_json()
    with pytest.raises(VerificationFailed, match="signed with another key than the entries before it"):
        verify_chain([*texts, forged], pem)
    with pytest.raises(VerificationFailed, match="is entry 6, but its key signs only the run's entries 1 to 5"):
        check_handed_out([forged, *key_changes_of(run)], pem)
    agreed = last.facts.model_copy(update={"next_key": stolen.public_key.hex()})
    alone = signed(KeyEntry, stolen, facts=agreed).to_json()  # in the place of the genuine change, to itself
    with pytest.raises(VerificationFailed, match="did not sign the change"):
        verify_chain([*texts[:-1], alone], pem)


@pytest.mark.parametrize("step", ["write_once", "append", "settle_next", "replace_file"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_leaves_a_run_that_signs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    def cut(real: Callable[..., object]) -> Callable[..., object]:
        def die(*arguments: object, **named: object) -> object:
            if after:
                real(*arguments, **named)
            raise Killed

        return die

    owner, name = (run.ledger, "change_key") if step == "append" else (key_change, step)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, cut(getattr(owner, name)))
        with pytest.raises(Killed):
            change_key(run, "rotation")
    run.close()
    changed = (step, after) not in {("write_once", False), ("write_once", True), ("append", False)}
    with Run.open(tmp_path / "run") as again:
        assert [row.kind for row in again.ledger.log()].count("key") == changed
        deletion.accept(again, ["r7"], [])
        verify_chain(chain(again), again.keys.public_key_pem, again.ledger.log_head())
        assert (tmp_path / "run.keys" / "public.pem").read_bytes() == again.keys.public_key_pem
        change_key(again, "rotation")
        deletion.accept(again, ["r9"], [])
        note = publish(again)
        assert note is not None
        assert LogHead.parse(note.text).size == len(chain(again))
        assert LogProof.parse(proof_of(again, 2)).index == 1
        assert sorted(os.listdir(tmp_path / "run.keys"))[1:] == ["master.key", "public.pem", "signing.key"]
    assert ledger_keys.KEY_BYTES == 32
