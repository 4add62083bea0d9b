"""Backups: a storage older than its ledger, a run taken back, a ledger exchanged, an audit of a read-only copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import LedgerError, StoreError
from s3t_ray.run import deletion
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


def test_a_run_taken_back_as_a_whole_serves_nobody(folder: Path) -> None:
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
    assert len([line for line in told if "is not in the chain" in line or "the ledger is older" in line]) == 2


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
    changed = small_config(folder, ledger={"url": f"sqlite:///{folder / 'empty.db'}"})
    with pytest.raises(LedgerError, match="they do not belong together"):
        Cluster(changed)
    (folder / "run" / "run.json").unlink()  # as an older version left it
    with pytest.raises(LedgerError, match="this ledger is empty"):
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
