"""`s3t certificate`, `s3t check-certificate` and `s3t audit` on a run made with the hashing trainer."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from rich.console import Console

from s3t_ray import __version__
from s3t_ray.cli.show.show_proof import CertificatesChecked, checked_view, entry_view
from s3t_ray.errors import DataError, LedgerError, VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.rows.failure_rows import FailedLog
from s3t_ray.proof.certificate import Certificate, issue
from s3t_ray.proof.certificate_page import read_page
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t
from tests.unit.ledger.certify import KEYS, ORDERS, PEM, SOFTWARE
from tests.unit.proof.test_handed_out import certificate


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two deletions restored and a third accepted."""
    folder = tmp_path_factory.mktemp("origin")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    for name in ("r3", "r7"):
        deletion.accept(cluster.run, [name], [])
        cluster.settle()
    deletion.accept(cluster.run, ["r9"], [])
    cluster.run.close()
    del cluster
    gc.collect()  # what still has the ledger open lets go of it now, not while a test copies it
    return folder


@pytest.fixture
def run(origin: Path, tmp_path: Path) -> Path:
    shutil.copytree(origin / "run", tmp_path / "run")
    shutil.copytree(origin / "run.keys", tmp_path / "run.keys")
    return tmp_path / "run"


@pytest.fixture
def requests(run: Path) -> list[str]:
    with Run.open(run) as opened:
        return [row.receipt.request_id for row in opened.ledger.deletions()]


def test_a_certificate_is_shown_and_handed_out_as_it_was_signed(run: Path, requests: list[str], tmp_path: Path) -> None:
    shown = s3t("certificate", str(run), requests[0]).stdout
    assert f"deletion      {requests[0]}" in shown and "1 deleted" in shown and "signed by" in shown
    text = s3t("certificate", str(run), requests[0], "--json").stdout
    assert json.loads(text)["facts"]["request_id"] == requests[0]
    out = tmp_path / "one.json"
    assert "check-certificate" in s3t("certificate", str(run), requests[0], "--out", str(out)).stderr
    assert out.read_text() == text
    whole = s3t("certificate", str(run)).stdout
    assert "earlier_requests ()" in whole, "each value stands apart from its name"
    chain = tmp_path / "chain.jsonl"
    assert " entries to " in s3t("certificate", str(run), "--out", str(chain)).stderr
    again = s3t("certificate", str(run), requests[0], "--out", str(out))
    assert again.exit_code == DataError.exit_code and "already exists" in again.stderr


def test_there_is_no_certificate_before_the_deletion_is_restored(run: Path, requests: list[str]) -> None:
    early = s3t("certificate", str(run), requests[2])
    assert early.exit_code == LedgerError.exit_code and "is accepted: it has no certificate yet" in early.stderr
    unknown = s3t("certificate", str(run), "nothing")
    assert unknown.exit_code == LedgerError.exit_code and "there is no deletion 'nothing'" in unknown.stderr


def test_the_chain_is_checked_with_the_public_key_alone(run: Path, requests: list[str], tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.jsonl", tmp_path / "public.pem"
    s3t("certificate", str(run), "--out", str(chain))
    key.write_bytes((run.parent / "run.keys" / "public.pem").read_bytes())
    shutil.rmtree(run)
    shutil.rmtree(run.parent / "run.keys")
    result = s3t("check-certificate", str(chain), "--public-key", str(key))
    assert result.exit_code == 0
    assert "genuine: signed by key" in result.stdout and "the whole log of run" in result.stdout
    report = json.loads(s3t("check-certificate", str(chain), "--public-key", str(key), "--json").stdout)
    assert (report["first"], report["last"], report["missing"]) == (1, report["certificates"], 0)
    assert report["requests"][:2] == requests[:2] and report["certificates"] >= 7


def test_files_of_a_chain_come_in_any_order_and_may_begin_later(run: Path, tmp_path: Path) -> None:
    lines = s3t("certificate", str(run), "--json").stdout.splitlines()
    for number, line in enumerate(lines):
        (tmp_path / f"{number}.json").write_text(f"{line}\n\n")
    key = str(run.parent / "run.keys" / "public.pem")
    files = [str(tmp_path / "1.json"), str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    assert "entries 1 to 2" in s3t("check-certificate", *files, "--public-key", key).stdout
    assert (
        "entries 2 to 2, a part of the log of run test"
        in s3t("check-certificate", files[0], "--public-key", key).stdout
    )


def test_a_receipt_is_handed_out_and_belongs_to_its_certificate(run: Path, tmp_path: Path) -> None:
    handed, key = tmp_path / "receipt.json", str(run.parent / "run.keys" / "public.pem")
    deleted = s3t("delete", str(run), "--id", "r3", "--no-wait", "--receipt-out", str(handed), "--json")
    told = json.loads(deleted.stdout)
    assert told["proof"] == json.loads(handed.read_text())
    assert s3t("audit", str(run), "--receipt", str(handed)).exit_code == 0
    certificate = tmp_path / "certificate.json"
    assert s3t("certificate", str(run), told["request_id"], "--out", str(certificate)).exit_code == 0
    own = s3t("check-certificate", str(certificate), "--public-key", key, "--receipt", str(handed), "--id", "r3")
    assert own.exit_code == 0, own.stderr
    again = s3t("delete", str(run), "--id", "r3", "--no-wait", "--receipt-out", str(handed))
    assert again.exit_code == DataError.exit_code and "already exists" in again.stderr
    sqlite3.connect(run / "ledger.db").executescript("DELETE FROM s3t_log WHERE kind = 'receipt'")
    lost = s3t("audit", str(run), "--receipt", str(handed))
    assert lost.exit_code == VerificationFailed.exit_code and "was handed out, but is not in the log" in lost.stdout


def test_what_is_not_genuine_is_refused(run: Path, tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.jsonl", str(run.parent / "run.keys" / "public.pem")
    lines = s3t("certificate", str(run), "--json").stdout.splitlines()
    other = tmp_path / "other.pem"
    other.write_bytes(Keys(b"x" * 32).public_key_pem)
    for text, public, part in (
        ("\n".join(lines).replace('"records":1', '"records":2'), key, "does not have a valid signature"),
        ("\n".join(lines), str(other), "is signed by another key"),
        (lines[0] + "x", key, "is not a certificate"),
    ):
        chain.write_text(text)
        result = s3t("check-certificate", str(chain), "--public-key", public)
        assert result.exit_code == VerificationFailed.exit_code
        assert part in result.stderr
    chain.write_text("\n")
    assert s3t("check-certificate", str(chain), "--public-key", key).exit_code == DataError.exit_code
    missing = s3t("check-certificate", str(tmp_path / "none"), "--public-key", key)
    assert missing.exit_code == DataError.exit_code and "cannot be read" in missing.stderr


def test_an_entry_of_another_key_is_not_handed_out(run: Path, requests: list[str]) -> None:
    with Run.open(run) as opened:
        genuine = opened.ledger.certificate(requests[1])
    assert isinstance(genuine, Certificate)
    forged = issue(genuine.facts, Keys(b"x" * 32), genuine.orders, genuine.software).to_json()
    with sqlite3.connect(run / "ledger.db") as database:
        database.execute("UPDATE s3t_log SET entry = ? WHERE sequence = ?", (forged, genuine.facts.sequence))
    for arguments in ((requests[1],), ()):
        refused = s3t("certificate", str(run), *arguments)
        assert refused.exit_code == VerificationFailed.exit_code and "is signed by another key" in refused.stderr
    (run.parent / "run.keys" / "public.pem").unlink()  # with what an entry carries, one can only tell that it is whole
    assert s3t("certificate", str(run), requests[1], "--json").stdout == forged + "\n"


def test_no_entry_drives_the_terminal(run: Path, requests: list[str]) -> None:
    with Run.open(run) as opened:
        genuine = opened.ledger.certificate(requests[0])
    assert isinstance(genuine, Certificate)
    texts = {name: f"\x1b[2J{name}" for name in ("request_id", "accepted_at", "pruned_at", "purged_at", "restored_at")}
    texts |= {"recipe_digest": "\x9b2J", "base_digest": "\x9b2J", "run": "\x1b[2J"}
    entry = genuine.model_copy(update={"facts": genuine.facts.model_copy(update=texts)})
    checked = CertificatesChecked(
        certificates=1, first=1, last=1, missing=0, head="", run="\x1b[2J", public_key="", requests=()
    )
    console = Console(width=200)
    with console.capture() as shown:
        console.print(entry_view(entry), checked_view(checked, [entry]))
    assert "\x1b" not in shown.get() and "\x9b" not in shown.get()


def test_a_page_and_a_statement_are_handed_out_and_checked_like_a_certificate(
    run: Path, requests: list[str], tmp_path: Path
) -> None:
    key = str(run.parent / "run.keys" / "public.pem")
    page, statement = str(tmp_path / "c.html"), str(tmp_path / "c.dsse.json")
    made = s3t("certificate", str(run), requests[0], "--html", page, "--dsse", statement)
    assert made.exit_code == 0 and "open it or run s3t check-certificate" in made.stderr, made.output
    for file, count, proofs in ((page, 3, 1), (statement, 1, 0)):
        checked = json.loads(s3t("check-certificate", file, "--public-key", key, "--json").stdout)
        assert (checked["certificates"], len(checked["in_log"])) == (count, proofs)
        assert checked["requests"] == [requests[0]]
    assert s3t("audit", str(run), "--certificate", page).exit_code == 0
    genuine = Path(page).read_text()
    for text, part in (
        (genuine.replace("What was deleted", "All was deleted"), "not exactly what s3t_ray writes"),
        (genuine.replace('"version": "', '"version": "9'), "wrote this page, and this is"),
        (genuine.replace('id="signed">', 'id="other">'), "no readable certificate"),
        (genuine.replace("\n", "\r\n"), "not exactly what s3t_ray writes"),
    ):
        Path(page).write_bytes(text.encode())
        refused = s3t("check-certificate", page, "--public-key", key)
        assert refused.exit_code == VerificationFailed.exit_code and part in refused.stderr, refused.stderr
    assert s3t("certificate", str(run), "--html", str(tmp_path / "all.html")).exit_code == 2


def test_a_page_comes_without_a_proof_where_the_log_is_not_published(
    run: Path, requests: list[str], tmp_path: Path
) -> None:
    shutil.rmtree(run / layout.LOG)
    made = s3t("certificate", str(run), requests[0], "--html", str(tmp_path / "c.html"))
    assert made.exit_code == 0 and "no proof that the certificate is in the log" in made.stderr
    assert read_page((tmp_path / "c.html").read_text(), __version__).proof is None


def test_a_name_with_a_line_separator_in_it_is_one_line(tmp_path: Path) -> None:
    """U+2028 ends no line of a file of entries, and JSON leaves it as it is."""
    named = issue(certificate(2, "9" * 64, run="a\u2028b").facts, KEYS, ORDERS, SOFTWARE)
    (tmp_path / "c.json").write_text(named.to_json() + "\n")
    (tmp_path / "public.pem").write_bytes(PEM)
    checked = s3t("check-certificate", str(tmp_path / "c.json"), "--public-key", str(tmp_path / "public.pem"), "--json")
    assert checked.exit_code == 0, checked.stderr
    assert json.loads(checked.stdout)["run"] == "a\u2028b"


def test_an_audit_of_a_good_run(run: Path, tmp_path: Path) -> None:
    chain = tmp_path / "chain.jsonl"
    s3t("certificate", str(run), "--out", str(chain))
    result = s3t("audit", str(run), "--certificate", str(chain))
    assert result.exit_code == 0, result.stdout
    assert "2 certificates, 17 records and" in result.stdout and "no problem found" in result.stdout
    key = str(run.parent / "run.keys" / "public.pem")
    report = json.loads(s3t("audit", str(run), "--public-key", key, "--json").stdout)
    assert report["certificates"] == 2 and report["problems"] == []
    (tmp_path / "other.pem").write_bytes(Keys(b"x" * 32).public_key_pem)
    result = s3t("audit", str(run), "--public-key", str(tmp_path / "other.pem"))
    assert result.exit_code == VerificationFailed.exit_code and "is not the trusted one" in result.stdout
    missing = s3t("audit", str(run), "--public-key", str(tmp_path / "none"))
    assert missing.exit_code == DataError.exit_code and "cannot be read" in missing.stderr


def test_an_audit_that_finds_something(run: Path) -> None:
    (run / "slices" / "0" / "0" / "old.parquet").write_bytes(b"x")
    result = s3t("audit", str(run))
    assert result.exit_code == VerificationFailed.exit_code
    assert "problem: slices/0/0/old.parquet should be gone" in result.stdout
    assert "1 problem found" in result.stderr


def test_a_certificate_and_a_receipt_come_with_a_proof_that_is_checked_offline(
    run: Path, requests: list[str], tmp_path: Path
) -> None:
    key, one, proof, early = (tmp_path / name for name in ("public.pem", "one.json", "one.proof", "receipt.proof"))
    shutil.copy(run.with_name("run.keys") / "public.pem", key)
    written = s3t("certificate", str(run), requests[0], "--out", str(one), "--proof", str(proof))
    assert written.exit_code == 0, written.stderr
    text = proof.read_text()
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")
    others = [row for row in s3t("certificate", str(run), "--json").stdout.splitlines() if requests[0] not in row]
    assert not any(json.loads(row)["facts"].get("request_id", "no such thing") in text for row in others)
    checked = s3t("check-certificate", str(one), "--public-key", str(key), "--proof", str(proof), "--json")
    assert json.loads(checked.stdout)["in_log"][0]["entry"] == 4
    assert (
        "in the log: entry 4 of "
        in s3t("check-certificate", str(one), "--public-key", str(key), "--proof", str(proof)).stdout
    )
    unwitnessed = s3t("check-certificate", str(one), "--public-key", str(key), "--proof", str(proof), "--quorum", "1")
    assert unwitnessed.exit_code == VerificationFailed.exit_code
    proof.write_text(text.replace("index 3", "index 2"))
    forged = s3t("check-certificate", str(one), "--public-key", str(key), "--proof", str(proof))
    assert forged.exit_code == VerificationFailed.exit_code
    late = s3t("certificate", str(run), requests[0], "--receipt-proof", str(early))
    assert late.exit_code == 0
    assert early.read_text().startswith("c2sp.org/tlog-proof@v1\nindex 1\n")


def test_the_head_is_printed_and_published_without_a_scheduler(run: Path, requests: list[str]) -> None:
    before = json.loads(s3t("head", str(run), "--json").stdout)
    assert before["size"] == 7  # the third deletion was accepted after the last round of a scheduler
    early = s3t("certificate", str(run), requests[0], "--receipt-proof", str(run.with_name("p")))
    assert early.exit_code == 0
    with Run.open(run) as opened:  # as a scheduler that could not reach a witness
        opened.ledger.record_failure(opened.ledger.lease().epoch, FailedLog(), "no witness answers")
    printed = s3t("head", str(run), "--publish").stdout
    with Run.open(run) as opened:
        assert opened.ledger.failures() == ()
    assert printed.splitlines()[:2] == [before["origin"], "8"]
    assert s3t("head", str(run)).stdout == printed
    assert s3t("head", str(run), "--key").stdout.strip() == before["key"]
    (run / "log" / "checkpoint").write_text(printed.replace("\n8\n", "\n9\n"))
    forged = s3t("head", str(run))
    assert forged.exit_code == VerificationFailed.exit_code
    shutil.rmtree(run / "log")
    assert s3t("head", str(run)).exit_code == LedgerError.exit_code
