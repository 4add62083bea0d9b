"""Backups: a storage older than its ledger, a reset run, a replaced ledger, an audit of a read-only copy."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import LedgerError, S3TError, StoreError, VerificationFailed
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.integrity.restore import restore
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.run.stored_boundaries import with_boundaries
from tests.fakes import Cluster, adapters, small_config


def put_back(copy: Path, run: Path, ledger: bool) -> None:
    """What lay in `copy` lies in `run` again; the ledger with its keys' memory untouched unless `ledger`."""
    for path in run.iterdir():
        if ledger or not path.name.startswith("ledger.db"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in copy.iterdir():
        if ledger or not path.name.startswith("ledger.db"):
            shutil.copytree(path, run / path.name) if path.is_dir() else shutil.copy(path, run / path.name)


def test_a_restored_storage_is_cleaned_and_loses_nothing(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    shutil.copytree(folder / "run", folder / "copy")
    deletion.accept(cluster.run, ["r3"], ["p1"])
    cluster.settle()
    wanted, slices = adapters(cluster.run), cluster.run.ledger.slices()
    cluster.run.close()
    put_back(folder / "copy", folder / "run", ledger=False)
    again = Cluster(small_config(folder))
    again.settle()
    assert adapters(again.run) == wanted
    assert [(s.records, s.file, s.file_sha256) for s in again.run.ledger.slices()] == [
        (s.records, s.file, s.file_sha256) for s in slices
    ]
    assert audit(again.run).problems == ()
    assert b"this is r3" not in b"".join(path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file())


def test_boundaries_are_chosen_before_a_restored_storage_is_cleaned(folder: Path) -> None:
    """A scheduler makes its worker groups first: without them it would never begin, and clean nothing."""
    config = small_config(folder, engine={"stored_boundaries": "auto"})
    cluster = Cluster(config)
    cluster.settle()
    shutil.copytree(folder / "run", folder / "copy")
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    cluster.run.close()
    put_back(folder / "copy", folder / "run", ledger=False)
    with Run.open(folder / "run") as run:
        there = frozenset(run.store.files())
        assert [state for state in run.ledger.slices() if state.file not in there]
        assert with_boundaries(run).engine.stored_boundaries != "auto"


def test_a_storage_that_is_not_enough_is_refused_and_nothing_is_erased(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    (state, *_) = [s for s in cluster.run.ledger.slices(0) if s.records]
    (other, *_) = [s for s in cluster.run.ledger.slices(1) if s.records]
    cluster.run.close()
    path = folder / "run" / str(state.file)
    foreign = path.with_name("older.parquet")
    path.unlink()
    shutil.copy(folder / "run" / str(other.file), foreign)
    with pytest.raises(StoreError, match="nothing was erased"):
        Cluster(small_config(folder))
    assert foreign.exists()


def test_a_completely_reset_run_is_not_served(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    cluster.run.ledger._database.forget_overwritten()
    shutil.copytree(folder / "run", folder / "copy")
    receipt = deletion.accept(cluster.run, ["r3"], [])
    cluster.run.close()
    put_back(folder / "copy", folder / "run", ledger=True)
    with pytest.raises(LedgerError, match="does not have it: the ledger is older") as refused:
        Cluster(small_config(folder))
    assert "receipts were given for" in refused.value.fix
    with Run.open(folder / "run", read_only=True) as opened:
        assert receipt.proof is not None
        told = audit(opened, receipts=[receipt.proof.to_json()]).problems
    assert len([line for line in told if "is not in the log" in line or "the ledger is older" in line]) == 2


def test_a_run_from_a_backup_forgets_again_before_it_opens(folder: Path) -> None:
    """The complete run, including its keys' memory, predates two deletions; only the copy of its log has them."""
    config = small_config(folder, ledger={"log_copy": str(folder / "elsewhere")})
    cluster = Cluster(config)
    cluster.settle()
    deletion.accept(cluster.run, ["r2"], [])
    cluster.settle()
    cluster.run.ledger._database.forget_overwritten()
    for name in ("run", "run.keys"):
        shutil.copytree(folder / name, folder / "copy" / name)
    receipts = [deletion.accept(cluster.run, ["r3"], []), deletion.accept(cluster.run, ["r9"], ["p1"])]
    cluster.settle()
    wanted = adapters(cluster.run)
    cluster.run.close()
    for name in ("run", "run.keys"):
        shutil.rmtree(folder / name)
        shutil.copytree(folder / "copy" / name, folder / name)
    with pytest.raises(LedgerError, match="the ledger is older than its copy") as refused:
        Run.open(folder / "run")
    assert "s3t restore" in refused.value.fix
    with pytest.raises(LedgerError, match="the ledger is older than its copy"):
        Cluster(config)
    with Run.open_unchecked(folder / "run") as taken_back:
        done = restore(taken_back, lambda line: None)
        assert done.deletions == tuple(receipt.request_id for receipt in receipts)
        assert restore(taken_back, lambda line: None).lost_entries == 0
    with Run.open(folder / "run") as opened:
        pending = [row for row in opened.ledger.deletions() if row.state is DeletionState.ACCEPTED]
        assert [row.receipt.request_id for row in pending] == list(done.deletions)
        assert [row.receipt.records for row in pending] == [receipt.records for receipt in receipts]
    again = Cluster(config)
    again.settle()
    assert adapters(again.run) == wanted
    assert audit(again.run).problems == ()
    assert b"this is r3" not in b"".join(path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file())
    copied = b"".join(path.read_bytes() for path in (folder / "elsewhere").rglob("*") if path.is_file())
    assert b'"r3"' not in copied and b'"p1"' not in copied


@pytest.mark.parametrize("crash_at", range(1, 5))
def test_a_killed_restore_continues(folder: Path, crash_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its steps: the two deletions, and the two renames of the copy."""
    config = small_config(folder, ledger={"log_copy": str(folder / "elsewhere")})
    cluster = Cluster(config)
    cluster.run.ledger._database.forget_overwritten()
    shutil.copytree(folder / "run", folder / "copy")
    receipts = [deletion.accept(cluster.run, [name], []) for name in ("r3", "r9")]
    cluster.run.close()
    put_back(folder / "copy", folder / "run", ledger=True)
    steps = 0

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == crash_at:
                raise KeyboardInterrupt
            return do(*given, **named)

        return step

    rename = os.rename
    moving = counted(rename)  # not the renames by which a file appears whole
    with monkeypatch.context() as patch, Run.open_unchecked(folder / "run") as taken_back:
        patch.setattr(taken_back.ledger, "accept_deletion", counted(taken_back.ledger.accept_deletion))
        patch.setattr(os, "rename", lambda old, new: (moving if ".tmp-" not in str(old) else rename)(old, new))
        with pytest.raises(KeyboardInterrupt):
            restore(taken_back, lambda line: None)
    with contextlib.suppress(LedgerError), Run.open(folder / "run") as opened:
        assert len(opened.ledger.deletions()) == len(receipts)  # never with one of them missing
    with Run.open_unchecked(folder / "run") as taken_back:
        restore(taken_back, lambda line: None)
    with Run.open(folder / "run") as opened:
        known = {row.receipt.request_id for row in opened.ledger.deletions()}
        assert known == {receipt.request_id for receipt in receipts}
        assert opened.log_copy is not None
        assert all(opened.log_copy.named(request, opened.keys) for request in known)


def test_a_copy_of_the_log_that_was_changed_or_cut_restores_nothing(folder: Path) -> None:
    config = small_config(folder, ledger={"log_copy": str(folder / "elsewhere")})
    cluster = Cluster(config)
    cluster.run.ledger._database.forget_overwritten()
    shutil.copytree(folder / "run", folder / "copy")
    receipt = deletion.accept(cluster.run, ["r3"], [])
    (copied,) = (folder / "elsewhere").iterdir()
    cluster.run.close()
    put_back(folder / "copy", folder / "run", ledger=True)
    names = f"{receipt.request_id}.names.json"
    damages: tuple[tuple[str, tuple[str, str] | None, type[S3TError]], ...] = (
        ("000000002.json", ('"records":1', '"records":2'), VerificationFailed),
        (names, ('"ids":["', '"ids":["00'), VerificationFailed),
        ("000000002.json", None, LedgerError),
        (names, None, LedgerError),
    )
    for name, change, error in damages:
        path = copied / name
        kept = path.read_text()
        if change is None:
            path.unlink()
        else:
            assert change[0] in kept
            path.write_text(kept.replace(*change))
        with Run.open_unchecked(folder / "run") as taken_back:
            with pytest.raises(error):
                restore(taken_back, lambda line: None)
            assert taken_back.ledger.deletions() == ()
        path.write_text(kept)


def test_a_deletion_is_accepted_while_the_copy_of_the_log_cannot_be_written(folder: Path) -> None:
    cluster = Cluster(small_config(folder, ledger={"log_copy": str(folder / "elsewhere")}))
    cluster.settle()
    (folder / "elsewhere").write_text("a file in its place")
    receipt = deletion.accept(cluster.run, ["r3"], [])
    assert receipt.note is not None and "log_copy could not be written" in receipt.note
    assert receipt.proof is not None
    assert any("ends at entry 0" in line for line in audit(cluster.run).problems)
    (folder / "elsewhere").unlink()
    assert deletion.accept(cluster.run, ["r3"], []).note is None
    cluster.settle()
    assert audit(cluster.run).problems == ()


def test_two_runs_with_one_ledger(folder: Path) -> None:
    url = {"url": f"sqlite:///{folder / 'shared.db'}"}
    Cluster(small_config(folder, ledger=url)).run.close()
    other = small_config(folder, ledger=url, storage={"uri": str(folder / "other")}, name="other")
    with pytest.raises(LedgerError, match="is not its storage; nothing was changed"):
        Cluster(other)
    assert not (folder / "other").exists() or not any((folder / "other").iterdir())


def test_another_ledger_under_a_run(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    cluster.run.close()
    address = f"sqlite:///{folder / 'empty.db'}"
    changed = small_config(folder, ledger={"url": address})
    mark = folder / "run" / "run.json"
    marked = mark.read_bytes()
    for _ in range(2):
        with pytest.raises(LedgerError, match="its ledger is not where"):
            Cluster(changed)
        assert not (folder / "empty.db").exists()
        mark.unlink(missing_ok=True)  # as an older version left it
    Ledger.open(address, create=True).close()
    with pytest.raises(LedgerError, match="this ledger is empty"):
        Cluster(changed)
    mark.write_bytes(marked)
    with pytest.raises(LedgerError, match="they do not belong together"):
        Cluster(changed)


def test_an_audit_writes_nothing_and_works_on_a_read_only_copy(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    cluster.settle()
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    cluster.run.close()
    for path in (folder, *(folder / "base").iterdir()):
        path.chmod(0o755)  # the base model lies here
    with tempfile.TemporaryDirectory() as place:
        # As root no right stops a write, so the audit runs as somebody else.
        user = 65534 if os.getuid() == 0 else os.getuid()
        for name in ("run", "run.keys"):
            shutil.copytree(folder / name, Path(place) / name)
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, user, -1)
            path.chmod(0o500 if path.is_dir() else 0o400)
        before = {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")}
        with Run.open(folder / "run", read_only=True) as warm:  # the child may not be able to read Python's own files
            assert audit(warm).problems == () and status(warm).settled
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(user)
                with Run.open(Path(place) / "run", read_only=True) as opened:
                    code = 2 if audit(opened).problems or not status(opened).settled else 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")} == before
        for path in (Path(place), *Path(place).rglob("*")):
            path.chmod(0o700)
