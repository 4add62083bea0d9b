"""Whoever tampers with a run is found by `audit`: each way that we know of, on a run with two deletions behind it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_ray.data.slices import Row, read_slice, write_slice
from s3t_ray.ledger.certificate import Certificate, issue
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.values import StageRow, StageState
from s3t_ray.runtime import delete
from s3t_ray.runtime.audit import audit
from s3t_ray.runtime.exports import ExportedFolder, remember_export
from s3t_ray.runtime.ingest import slice_digest
from s3t_ray.runtime.leftovers import ACCEPTANCE_SECONDS
from s3t_ray.runtime.run import Run
from s3t_ray.train.manifest import ADAPTER_FILE, read_manifest, write_manifest
from tests.fakes import Cluster, fake_base, small_config, write_records

PEOPLE = [(f"r{number}", f"p{number % 7}") for number in range(30)]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has restored two deletions; a copy of a stage that the second purged lies beside it."""
    folder = tmp_path_factory.mktemp("origin")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", PEOPLE)
    cluster = Cluster(small_config(folder))
    cluster.settle()
    for number in (3, 18):
        doomed = delete.preview(cluster.run, [f"r{number}"], []).shards[0]
        before = {stage.id: stage for stage in cluster.run.ledger.stages(doomed.shard, StageState.LIVE)}
        shutil.copytree(folder / "run" / "stages", folder / "old", dirs_exist_ok=True)
        receipt = delete.accept(cluster.run, [f"r{number}"], [])
        assert before.keys() & set(receipt.stages_pruned)
        cluster.settle()
    cluster.run.close()
    return folder


@pytest.fixture
def run(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A copy of that run, to tamper with."""
    monkeypatch.setattr("s3t_ray.runtime.leftovers.ACCEPTANCE_SECONDS", 0.0)
    assert ACCEPTANCE_SECONDS > 0
    shutil.copytree(origin / "run", tmp_path / "run")
    shutil.copytree(origin / "run.keys", tmp_path / "run.keys")
    with Run.open(tmp_path / "run") as opened:
        yield opened


def problems(run: Run, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    return audit(run, known=known).problems


def found(run: Run, part: str) -> None:
    told = problems(run)
    assert any(part in line for line in told), told


def sql(run: Run, *statements: str, values: tuple[object, ...] = ()) -> None:
    """Edit the ledger behind the run's back."""
    connection = sqlite3.connect(Path(run.location.storage_uri) / "ledger.db", isolation_level=None)
    try:
        for statement in statements:
            assert connection.execute(statement, values).rowcount != 0, statement
    finally:
        connection.close()


def live(run: Run) -> list[StageRow]:
    return list(run.ledger.stages(state=StageState.LIVE))


def root(run: Run) -> Path:
    return Path(run.location.storage_uri)


def test_an_untouched_run_passes(run: Run) -> None:
    report = audit(run)
    assert report.problems == () and report.ok
    assert (report.certificates, report.records, report.stages) == (2, 28, 12)
    assert report.head == run.ledger.certificate_head().hash
    assert report.public_key == run.ledger.certificates()[0].fingerprint


def test_a_run_in_the_middle_of_a_deletion_passes(run: Run) -> None:
    delete.accept(run, ["r5"], [])
    assert problems(run) == ()


# Certificates


def test_an_edited_certificate(run: Run) -> None:
    sql(run, "UPDATE s3t_certificates SET certificate = replace(certificate, '\"records\":1', '\"records\":2')")
    found(run, "does not carry a valid signature")


def test_a_certificate_that_is_none(run: Run) -> None:
    sql(run, "UPDATE s3t_certificates SET certificate = 'x' WHERE sequence = 2")
    found(run, "certificate 2: this is not a certificate")


@pytest.mark.parametrize(("number", "part"), [(1, "the chain breaks"), (2, "is restored and has no certificate")])
def test_a_dropped_certificate(run: Run, number: int, part: str) -> None:
    sql(run, f"DELETE FROM s3t_certificates WHERE sequence = {number}")
    found(run, part)


def test_two_certificates_in_each_others_place(run: Run) -> None:
    sql(
        run,
        "UPDATE s3t_certificates SET sequence = 9, hash = 'x' WHERE sequence = 1",
        "UPDATE s3t_certificates SET sequence = 1 WHERE sequence = 2",
        "UPDATE s3t_certificates SET sequence = 2 WHERE sequence = 9",
    )
    found(run, "stands in the place of another")


def test_two_certificates_swapped_with_their_hashes_and_deletions(run: Run) -> None:
    first, second = run.ledger.stored_certificates()
    sql(run, "UPDATE s3t_certificates SET hash = 'h' || sequence, deletion = -deletion")
    for sequence, row in ((1, second), (2, first)):
        sql(
            run,
            "UPDATE s3t_certificates SET certificate = ?, hash = ?, deletion = "
            "(SELECT sequence FROM s3t_deletions WHERE request_id = ?) WHERE sequence = ?",
            values=(row.text, row.hash, row.request_id, sequence),
        )
    found(run, "stands in the place of another")
    found(run, "the chain breaks")


def test_a_certificate_forged_with_another_key(run: Run) -> None:
    last = Certificate.model_validate_json(run.ledger.stored_certificates()[-1].text)
    forged = issue(last.facts, Keys(b"x" * 32), last.orders, last.software)
    sql(
        run,
        "UPDATE s3t_certificates SET certificate = ?, hash = ? WHERE sequence = 2",
        values=(forged.to_json(), forged.hash),
    )
    found(run, "is signed by another key")


def test_another_public_key_for_the_auditors(run: Run) -> None:
    (run.location.keys_dir / "public.pem").write_bytes(Keys(b"x" * 32).public_key_pem)
    found(run, "is not the run's public key")
    (run.location.keys_dir / "public.pem").unlink()
    found(run, "auditors have no public key")


def test_a_run_taken_back_as_a_whole_lacks_the_certificate_that_was_handed_out(run: Run) -> None:
    first, second = (row.text for row in run.ledger.stored_certificates())
    assert problems(run, known=(first, second)) == ()
    newest = Certificate.model_validate_json(second)
    foreign = issue(newest.facts, Keys(b"x" * 32), newest.orders, {})
    assert any("another key" in line for line in problems(run, known=(foreign.to_json(),)))
    sql(run, "DELETE FROM s3t_certificates WHERE sequence = 2")
    assert any("was handed out and is not in the chain" in line for line in problems(run, known=(first, second)))


# Stages


def swap(run: Run, with_manifest: bool) -> tuple[StageRow, str]:
    """Give one live stage the adapter of another of its shard."""
    target, source = [row for row in live(run) if row.shard == 0][:2]
    adapter = run.store.read_bytes(f"stages/{source.id}/{ADAPTER_FILE}")
    sha256 = hashlib.sha256(adapter).hexdigest()
    (root(run) / "stages" / target.id / ADAPTER_FILE).write_bytes(adapter)
    if with_manifest:
        manifest = read_manifest(run.store, target.id)
        files = {**manifest.files, ADAPTER_FILE: sha256}
        changed = manifest.model_copy(update={"adapter_sha256": sha256, "files": files})
        (root(run) / "stages" / target.id / "manifest.json").write_bytes(write_manifest(changed))
    return target, sha256


def test_the_adapter_of_another_stage(run: Run) -> None:
    swap(run, with_manifest=False)
    found(run, f"{ADAPTER_FILE} is not what was published")


def test_the_adapter_of_another_stage_with_its_manifest(run: Run) -> None:
    swap(run, with_manifest=True)
    found(run, f"{ADAPTER_FILE} is not what was published")
    found(run, "its manifest names another adapter than the ledger")


def test_the_adapter_of_another_stage_with_its_manifest_and_its_row(run: Run) -> None:
    target, sha256 = swap(run, with_manifest=True)
    sql(run, "UPDATE s3t_stages SET adapter_sha256 = ? WHERE id = ?", values=(sha256, target.id))
    found(run, "has the very adapter of another stage")
    found(run, "or another adapter, than when it was accepted")


def test_a_purged_stage_put_back(run: Run, origin: Path) -> None:
    (purged, *_) = run.ledger.stages(state=StageState.PURGED)
    shutil.copytree(origin / "old" / purged.id, root(run) / "stages" / purged.id)
    found(run, f"stages/{purged.id} holds bytes of a stage that should be gone")
    sql(run, "UPDATE s3t_stages SET state = 'stale' WHERE id = ?", values=(purged.id,))
    found(run, "by its history it is purged")
    sql(run, "UPDATE s3t_stages SET state = 'live' WHERE id = ?", values=(purged.id,))
    found(run, "serves, but does not follow from the retained data")


def test_a_stage_in_the_storage_that_the_ledger_has_not_accepted(run: Run) -> None:
    deepest = max(live(run), key=lambda row: row.depth)
    sql(
        run,
        f"DELETE FROM s3t_pruned WHERE stage = '{deepest.id}' OR 1",
        f"DELETE FROM s3t_stages WHERE id = '{deepest.id}'",
    )
    found(run, f"stages/{deepest.id} is not live")


def test_a_live_stage_added_to_the_ledger_by_hand(run: Run) -> None:
    """Wanted by the plan, with bytes and a manifest that all agree: only nobody ever had it accepted."""
    victim = max((row for row in live(run)), key=lambda row: row.depth)
    sql(
        run,
        "INSERT INTO s3t_stages SELECT 'ff' || substr(id, 3), shard, slices, ancestors, state, adapter_sha256, "
        f"accepted_at, accepted, pruned_by FROM s3t_stages WHERE id = '{victim.id}'",
    )
    found(run, "serves, but does not follow from the retained data")
    sql(run, f"DELETE FROM s3t_stages WHERE id = '{victim.id}'")
    sql(run, f"UPDATE s3t_stages SET id = '{victim.id}' WHERE id LIKE 'ff%'")
    assert problems(run) == ()
    sql(run, f"DELETE FROM s3t_events WHERE kind = 'stage_accepted' AND detail LIKE '%{victim.id}%'")
    found(run, "no scheduler ever had it accepted")
    found(run, "the history lacks 2 of its numbers")


def test_a_stage_that_hides_what_it_learned(run: Run) -> None:
    """Its row decides which deletions take it out of service."""
    victim = max(live(run), key=lambda row: row.depth)
    sql(run, "UPDATE s3t_stages SET slices = '[7, 7, 7]' WHERE id = ?", values=(victim.id,))
    found(run, "its row in the ledger names other slices or parents")


def test_a_file_beside_a_stages_own(run: Run) -> None:
    (root(run) / "stages" / live(run)[0].id / "head.safetensors").write_bytes(b"another head")
    found(run, "head.safetensors was not published with its stage")


# Records


def rewrite(run: Run, row: Row, *, whole: bool) -> None:
    """Add a row to a slice and have the ledger name the new file; `whole`: as a slice of this new digest."""
    state = max(run.ledger.slices(0), key=lambda state: state.records)
    path = root(run) / str(state.file)
    made = write_slice(path, [*read_slice(path), row])
    final = path.with_name(f"{made.sha256}.parquet")
    path.rename(final)
    file = str(final.relative_to(root(run)))
    where = f"WHERE shard = 0 AND slice = {state.slice}"
    sql(run, f"UPDATE s3t_slices SET file = ?, file_sha256 = ? {where}", values=(file, made.sha256))
    if whole:
        digest = slice_digest(final)
        sql(
            run,
            f"UPDATE s3t_slices SET digest = ?, file_digest = ?, records = records + 1 {where}",
            values=(digest, digest),
        )


def a_row(run: Run) -> Row:
    state = max(run.ledger.slices(0), key=lambda state: state.records)
    return next(iter(read_slice(root(run) / str(state.file))))


def test_a_row_added_to_a_slice(run: Run) -> None:
    state = max(run.ledger.slices(0), key=lambda state: state.records)
    path = root(run) / str(state.file)
    write_slice(path, [*read_slice(path), Row("new", "{}", b"d" * 32)])
    found(run, "its bytes are not those that the ledger names")


@pytest.mark.parametrize("whole", [False, True])
def test_a_row_added_to_a_slice_and_to_the_ledger(run: Run, whole: bool) -> None:
    rewrite(run, Row("new", json.dumps({"text": "x"}), b"d" * 32), whole=whole)
    found(run, "1 rows whose content is not what their digest says")
    found(run, "1 rows are of records that the ledger does not have there")


@pytest.mark.parametrize("whole", [False, True])
def test_a_row_doubled(run: Run, whole: bool) -> None:
    """It needs no key: the row brings its digest."""
    rewrite(run, a_row(run), whole=whole)
    found(run, "retained records, and" if whole else "retained rows are not the")
    if whole:
        found(run, "serves, but does not follow from the retained data")


def test_a_row_with_a_genuine_digest_that_is_of_no_record(run: Run) -> None:
    """Only the holder of the key can make one."""
    rewrite(run, Row("new", "{}", run.keys.record_digest("new", "{}")), whole=True)
    found(run, "1 rows are of records that the ledger does not have there")


def test_a_tombstone_removed_before_the_purge(run: Run) -> None:
    delete.accept(run, ["r5"], [])
    sql(run, "UPDATE s3t_records SET deletion = NULL WHERE digest IS NOT NULL AND deletion IS NOT NULL")
    found(run, "and 0 tombstones are left")
    found(run, "retained rows are not the")


def test_a_tombstone_removed_after_the_purge(run: Run) -> None:
    digest = run.keys.record_digest("r3", "{}")
    sql(
        run,
        "UPDATE s3t_records SET deletion = NULL, digest = ? WHERE id_hmac = ?",
        values=(digest, run.keys.id_hmac("r3")),
    )
    found(run, "and 0 tombstones are left")
    found(run, "retained records, and")


def test_a_deleted_row_put_back(run: Run) -> None:
    content = json.dumps({"instruction": "say r3", "input": "", "output": "this is r3"})
    rewrite(run, Row("r3", content, run.keys.record_digest("r3", content)), whole=False)
    found(run, "1 rows are of records that the ledger does not have there")


# What should be gone


def test_other_bytes_that_should_be_gone(run: Run, tmp_path: Path) -> None:
    state = run.ledger.slices(0)[0]
    base = run.row.base_digest[:16]
    good, old = f"hidden/{base}/0/{state.slice}/{state.digest}", f"hidden/{base}/0/{state.slice}/{'0' * 64}"
    run.store.write_bytes(f"{good}/states", b"")
    assert problems(run) == ()
    run.store.write_bytes(f"{old}/states", b"")
    run.store.write_bytes("checkpoints/" + "0" * 64 + "/000000001/rank-0.safetensors", b"")
    run.store.write_bytes("slices/0/0/former.parquet", b"")
    row = {"source": "x", "line": 1, "reason": "no output", "row": {"id": "r3", "instruction": "say r3"}}
    run.store.write_bytes("rejects/rejects.jsonl", f"{json.dumps(row)}\n".encode())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ADAPTER_FILE).write_bytes(b"weights")
    gone = run.ledger.stages(state=StageState.PURGED)[0].id
    remember_export(run, 0, ExportedFolder(str(tmp_path / "out"), (gone,), (ADAPTER_FILE,)))
    told = problems(run)
    assert len(told) == 5
    for part in (
        f"{old} holds hidden states of data that is not retained",
        "checkpoints of a stage that nobody wants",
        "slices/0/0/former.parquet should be gone",
        "rejects: 1 rows set aside at ingest",
        "out holds weights of 1 purged stages",
    ):
        assert any(part in line for line in told), part


def test_a_ledger_that_makes_no_sense(run: Run) -> None:
    sql(run, "UPDATE s3t_stages SET slices = 'one and two'")
    found(run, "the ledger cannot be understood")
