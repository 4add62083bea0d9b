"""The published log: continued after a kill at any step, never forked, and a proof for every entry."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.proof.log_leaf import check_inclusion, leaf_of
from s3t_ray.proof.run_log import parse_entry
from s3t_ray.run import deletion
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.issued_proofs import ProvedEntry, proof_for
from s3t_ray.run.log.published_log import proof_of, publish, published, reader
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.store.local import LocalStore
from s3t_ray.tlog.entry_tree import EntryTree
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.tiles import LogFile, unbundled
from tests.fakes import Cluster, fake_base, small_config, write_records


class Killed(BaseException):
    """Nothing of ours catches it."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the log of a few deletions, published in steps."""
    folder = tmp_path_factory.mktemp("origin")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", f"p{number % 7}") for number in range(300)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    for number in (3, 18):
        deletion.accept(cluster.run, [f"r{number}"], [])
        cluster.settle()
    cluster.run.close()
    return folder


@pytest.fixture
def run(origin: Path, tmp_path: Path) -> Iterator[Run]:
    shutil.copytree(origin / "run", tmp_path / "run")
    shutil.copytree(origin / "run.keys", tmp_path / "run.keys")
    with Run.open(tmp_path / "run") as opened:
        yield opened


def log_files(run: Run) -> dict[str, bytes]:
    return {path: run.store.read_bytes(path) for path in run.store.files(layout.LOG)}


def size_of(run: Run) -> int:
    note = published(run)
    return 0 if note is None else LogHead.parse(note.text).size


def assert_proves_itself(run: Run) -> None:
    """Entries under the checkpoint have their proofs, and the bundles are the ledger's."""
    rows = run.ledger.log()
    for row in {*rows[:3], *rows[size_of(run) - 3 : size_of(run)]}:
        head, _ = check_inclusion(parse_entry(row.text), proof_of(run, row.sequence))
        assert head.size == size_of(run)
    leaves = [leaf_of(row.hash) for row in rows]
    for path, data in log_files(run).items():
        found = LogFile.parse(path.removeprefix(f"{layout.LOG}/"))
        if found is not None and found.level is None:
            start = found.index * 256
            assert unbundled(data) == leaves[start : start + found.width]


def test_the_scheduler_publishes_what_it_signs_and_every_entry_has_a_proof(run: Run) -> None:
    rows = run.ledger.log()
    assert [row.kind for row in rows] == ["run", *["receipt", "interim", "certificate"] * 2]
    assert size_of(run) == len(rows)
    assert_proves_itself(run)
    tree = EntryTree(f"s3t-ray/{run.ledger.run_id}", [leaf_of(row.hash) for row in rows])
    note = published(run)
    assert note is not None
    assert LogHead.parse(note.text) == tree.head()
    texts = "".join(row.text for row in rows)
    assert not any(data and data in texts.encode() for data in log_files(run).values())  # hashes, no entries
    assert publish(run) == note  # nothing new: nothing changes


def test_a_proof_is_of_one_entry_of_one_run_unchanged(run: Run) -> None:
    row, other = run.ledger.log()[1:3]
    entry, proof = parse_entry(row.text), proof_of(run, row.sequence)
    check_inclusion(entry, proof)
    with pytest.raises(VerificationFailed, match="the proof is for entry 2"):
        check_inclusion(parse_entry(other.text), proof)
    with pytest.raises(VerificationFailed):
        check_inclusion(entry, proof.replace("index 1\n", "index 2\n"))
    with pytest.raises(VerificationFailed, match="not genuine"):
        check_inclusion(entry, proof.replace("\n7\n", "\n8\n"))
    foreign = entry.model_copy(update={"facts": entry.facts.model_copy(update={"run_id": "0" * 32})})
    with pytest.raises(VerificationFailed, match="is for log"):
        check_inclusion(foreign, proof)
    with pytest.raises(VerificationFailed, match="0 of the witnesses cosigned"):
        check_inclusion(entry, proof, quorum=1)


def test_a_person_is_given_the_proof_of_the_newest_certificate_or_of_the_receipt(run: Run) -> None:
    request = run.ledger.deletions()[1].receipt.request_id
    rows = {row.kind: row for row in run.ledger.log_of(request)}
    for of, kind in ((ProvedEntry.CERTIFICATE, "certificate"), (ProvedEntry.RECEIPT, "receipt")):
        proof = proof_for(run, request[:12], of)
        assert proof == proof_of(run, rows[kind].sequence)
        assert check_inclusion(parse_entry(rows[kind].text), proof)[0].size == size_of(run)
    accepted = deletion.accept(run, ["r5"], []).request_id
    assert proof_for(run, accepted, ProvedEntry.RECEIPT) is None, "nobody has published it yet"
    publish(run)
    assert proof_for(run, accepted, ProvedEntry.RECEIPT) is not None
    assert proof_for(run, accepted, ProvedEntry.CERTIFICATE) is None
    with pytest.raises(LedgerError, match="there is no deletion"):
        proof_for(run, "0" * 16, ProvedEntry.RECEIPT)


def test_a_kill_at_any_step_leaves_a_log_that_is_continued(run: Run, tmp_path: Path) -> None:
    for number in range(50, 297):
        deletion.accept(run, [f"r{number}"], [])
    publish(run)
    assert size_of(run) == 254
    for number in range(30, 34):  # a tile fills up, and the next one begins
        deletion.accept(run, [f"r{number}"], [])
    shutil.copytree(tmp_path / "run" / layout.LOG, tmp_path / "before")
    publish(run)
    whole = log_files(run)
    store, steps = run.store, 0
    while True:
        shutil.rmtree(tmp_path / "run" / layout.LOG)
        shutil.copytree(tmp_path / "before", tmp_path / "run" / layout.LOG)
        left = steps

        def count(operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        run.store = LocalStore(store.uri, tmp_path / "run", before=count)
        try:
            publish(run)
        except Killed:
            steps += 1
        else:
            break
        finally:
            run.store = store
        assert size_of(run) in (254, 258)
        assert_proves_itself(run)  # under the old checkpoint or the new one, never in between
        publish(run)
        assert log_files(run).items() >= whole.items()
    assert steps > 30
    assert not run.store.exists(f"{layout.LOG}/tile/0/000.p")


def test_damaged_or_missing_files_are_made_anew_from_the_ledger(run: Run) -> None:
    whole = log_files(run)
    needed = ("checkpoint", "tile/0/000.p/7", "tile/entries/000.p/7")
    for path, data in ((f"{layout.LOG}/{name}", whole[f"{layout.LOG}/{name}"]) for name in needed):
        for bad in (None, data[:-1] + bytes([data[-1] ^ 1]), b""):
            if bad is None:
                run.store.delete(path)
            else:
                run.store.write_bytes(path, bad)
            receipt = deletion.accept(run, ["r50"], [])
            publish(run)
            assert receipt.proof is not None
            check_inclusion(receipt.proof.receipt, proof_of(run, receipt.proof.receipt.facts.sequence))
            for again, old in whole.items():
                run.store.write_bytes(again, old)


def test_a_ledger_that_was_rewritten_or_taken_back_is_not_published(run: Run, tmp_path: Path) -> None:
    before = run.store.read_bytes(CHECKPOINT)
    deletion.accept(run, ["r30"], [])
    publish(run)
    newer = log_files(run)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    deletion.accept(run, ["r31"], [])
    deletion.accept(run, ["r32"], [])
    publish(run)
    run.close()
    for path in (tmp_path / "run.keys").glob("*.log.json"):
        path.unlink()  # the key holder makes the keys forget
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        if (tmp_path / "copy" / name).exists():
            shutil.copy(tmp_path / "copy" / name, tmp_path / "run" / name)
    with pytest.raises(LedgerError, match=r"published with 10 entries .*, and the ledger has 8"):
        Run.open(tmp_path / "run")
    with Run.open_unchecked(tmp_path / "run") as back:  # who goes on all the same publishes nothing
        shown = log_files(back)
        with pytest.raises(VerificationFailed, match="older than what was published"):
            publish(back)
        for number in range(40, 43):
            deletion.accept(back, [f"r{number}"], [])  # another history, of the same length and longer
        with pytest.raises(VerificationFailed, match="it was rewritten"):
            publish(back)
        assert log_files(back) == shown
        assert newer[CHECKPOINT] != before


def test_an_entry_that_is_not_genuine_is_not_published(run: Run, tmp_path: Path) -> None:
    before = log_files(run)
    deletion.accept(run, ["r30"], [])
    with sqlite3.connect(tmp_path / "run" / "ledger.db") as connection:
        connection.execute("UPDATE s3t_log SET entry = replace(entry, 'r', 'R') WHERE sequence = 8")
    connection.close()
    with pytest.raises(VerificationFailed):
        publish(run)
    assert log_files(run) == before


def test_reading_a_part_that_is_gone_cuts_the_full_file(run: Run) -> None:
    data = run.store.read_bytes(f"{layout.LOG}/tile/0/000.p/7")
    run.store.delete(f"{layout.LOG}/tile/0/000.p")
    run.store.write_bytes(f"{layout.LOG}/tile/0/000", data + bytes(32 * 249))
    assert reader(run)("tile/0/000.p/7") == data
