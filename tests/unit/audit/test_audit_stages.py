"""`audit` detects tampering with stages, and erased data that was put back."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from s3t_ray.audit.audit import audit
from s3t_ray.ledger.values import ExportedFolder, StageRow, StageState
from s3t_ray.run.run import Run
from s3t_ray.store.manifest import ADAPTER_FILE, write_manifest
from s3t_ray.store.published_stage import read_manifest
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.unit.audit.tampering import found, live, problems, root, sql, writable

# Stages


def swap(lived: Run, with_manifest: bool) -> tuple[StageRow, str]:
    """Give one live stage the adapter of another of its shard."""
    target, source = [row for row in live(lived) if row.shard == 0][:2]
    adapter = lived.store.read_bytes(f"stages/{source.id}/{ADAPTER_FILE}")
    sha256 = hashlib.sha256(adapter).hexdigest()
    (root(lived) / "stages" / target.id / ADAPTER_FILE).write_bytes(adapter)
    if with_manifest:
        manifest = read_manifest(lived.store, target.id)
        files = {**manifest.files, ADAPTER_FILE: sha256}
        changed = manifest.model_copy(update={"adapter_sha256": sha256, "files": files})
        (root(lived) / "stages" / target.id / "manifest.json").write_bytes(write_manifest(changed))
    return target, sha256


def test_the_adapter_of_another_stage(lived: Run) -> None:
    swap(lived, with_manifest=False)
    found(lived, f"{ADAPTER_FILE} is not what was published")


def test_the_adapter_of_another_stage_with_its_manifest(lived: Run) -> None:
    swap(lived, with_manifest=True)
    found(lived, f"{ADAPTER_FILE} is not what was published")
    found(lived, "its manifest names another adapter than the ledger")


def test_the_adapter_of_another_stage_with_its_manifest_and_its_row(lived: Run) -> None:
    target, sha256 = swap(lived, with_manifest=True)
    sql(lived, "UPDATE s3t_stages SET adapter_sha256 = ? WHERE id = ?", values=(sha256, target.id))
    found(lived, "has the same adapter as another stage")
    found(lived, "or another adapter, than when it was accepted")


def test_a_purged_stage_put_back(lived: Run, lived_origin: Path) -> None:
    (purged, *_) = lived.ledger.stages(state=StageState.PURGED)
    shutil.copytree(lived_origin / "old" / purged.id, root(lived) / "stages" / purged.id)
    found(lived, f"stages/{purged.id} holds bytes of a stage that should be gone")
    sql(lived, "UPDATE s3t_stages SET state = 'stale' WHERE id = ?", values=(purged.id,))
    found(lived, "but its history says purged")
    sql(lived, "UPDATE s3t_stages SET state = 'live' WHERE id = ?", values=(purged.id,))
    found(lived, "is in service, but does not follow from the retained data")


def test_a_stage_in_the_storage_that_the_ledger_has_not_accepted(lived: Run) -> None:
    deepest = max(live(lived), key=lambda row: row.depth)
    sql(
        lived,
        f"DELETE FROM s3t_pruned WHERE stage = '{deepest.id}' OR 1",
        f"DELETE FROM s3t_stages WHERE id = '{deepest.id}'",
    )
    found(lived, f"stages/{deepest.id} is not live")


def test_a_live_stage_added_to_the_ledger_by_hand(lived: Run) -> None:
    """A planned stage with consistent bytes and manifest that was never accepted."""
    victim = max((row for row in live(lived)), key=lambda row: row.depth)
    sql(
        lived,
        "INSERT INTO s3t_stages SELECT 'xx' || substr(id, 3), shard, slices, ancestors, state, adapter_sha256, "
        f"accepted_at, accepted, pruned_by FROM s3t_stages WHERE id = '{victim.id}'",
    )
    found(lived, "is in service, but does not follow from the retained data")
    sql(lived, f"DELETE FROM s3t_stages WHERE id = '{victim.id}'")
    sql(lived, f"UPDATE s3t_stages SET id = '{victim.id}' WHERE id LIKE 'xx%'")
    assert problems(lived) == ()
    sql(lived, f"DELETE FROM s3t_events WHERE kind = 'stage_accepted' AND detail LIKE '%{victim.id}%'")
    found(lived, "no scheduler ever had it accepted")
    found(lived, "the history lacks 2 of its numbers")


def test_a_stage_that_hides_what_it_learned(lived: Run) -> None:
    """Its row decides which deletions take it out of service."""
    victim = max(live(lived), key=lambda row: row.depth)
    sql(lived, "UPDATE s3t_stages SET slices = '[7, 7, 7]' WHERE id = ?", values=(victim.id,))
    found(lived, "its row in the ledger names other slices or parents")


def test_a_file_beside_a_stages_own(lived: Run) -> None:
    (root(lived) / "stages" / live(lived)[0].id / "head.safetensors").write_bytes(b"another head")
    found(lived, "head.safetensors was not published with its stage")


# What should be gone


def test_other_bytes_that_should_be_gone(lived: Run, tmp_path: Path) -> None:
    state = lived.ledger.slices(0)[0]
    base = lived.row.base_digest[:16]
    good, old = f"hidden/{base}/0/{state.slice}/{state.digest}", f"hidden/{base}/0/{state.slice}/{'0' * 64}"
    lived.store.write_bytes(f"{good}/states", b"")
    assert problems(lived) == ()
    lived.store.write_bytes(f"{old}/states", b"")
    lived.store.write_bytes("checkpoints/" + "0" * 64 + "/000000001/rank-0.safetensors", b"")
    lived.store.write_bytes("slices/0/0/former.parquet", b"")
    row = {"source": "x", "line": 1, "reason": "no output", "row": {"id": "r3", "instruction": "say r3"}}
    lived.store.write_bytes("rejects/rejects.jsonl", f"{json.dumps(row)}\n".encode())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ADAPTER_FILE).write_bytes(b"weights")
    gone = lived.ledger.stages(state=StageState.PURGED)[0].id
    with writable(lived) as run:
        run.ledger.exports.note(0, ExportedFolder(str(tmp_path / "out"), (gone,), (ADAPTER_FILE,)))
    told = problems(lived)
    assert len(told) == 5
    for part in (
        f"{old} holds hidden states of data that is not retained",
        "checkpoints of a stage that is not needed",
        "slices/0/0/former.parquet should be gone",
        "rejects: 1 rows set aside at ingest",
        "out holds weights of 1 purged stages",
    ):
        assert any(part in line for line in told), part


def test_temporaries_that_nobody_is_at_work_on(lived: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root(lived) / "slices" / "0" / f"tmp-rows.parquet-{'0' * 16}"
    path.write_bytes(b"rows")
    (root(lived) / "tmp-ingest-abc").mkdir()
    assert sorted(line.split()[0] for line in problems(lived)) == [str(path.relative_to(root(lived))), "tmp-ingest-abc"]
    with writable(lived) as run:
        epoch = run.ledger.take_lease("alive")

        class Beating(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                run.ledger.beat(epoch)
                return False

        monkeypatch.setattr("s3t_ray.audit.leftovers.threading.Event", Beating)
        assert problems(lived) == ()  # they may be a purge's


# What it costs


def statements(folder: Path, **changes: object) -> tuple[int, int]:
    """How many stages a run with these settings has, and how many statements an audit of it asks the ledger."""
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    cluster = Cluster(small_config(folder, **changes))
    cluster.settle()
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        report = audit(cluster.run)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert report.result == "verified"
    return report.stages, len(asked)


def test_the_ledger_is_asked_no_more_often_for_many_stages(tmp_path: Path) -> None:
    few = statements(tmp_path / "few", budget=1)
    many = statements(tmp_path / "many", budget=6)
    assert few[0] == 6 and many[0] == 2 * 15 and few[1] == many[1]
