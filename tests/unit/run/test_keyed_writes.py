"""A run that was opened anew seals, signs and checks with its keys by itself: nobody has to fetch them first."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from s3t_ray.config.location import MASTER_FILE
from s3t_ray.errors import LedgerError
from s3t_ray.ledger.certificate_chain import Circumstances
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.signers.signing_key import FileSigner
from s3t_ray.ledger.values import DeletionState, ExportedFolder, StageState
from s3t_ray.proof.certificate import OrderChoice
from s3t_ray.run.exports import EXPORTED_FILES
from s3t_ray.run.run import Run
from s3t_ray.scheduler.purge import purge_shard
from tests.fakes import Cluster, fake_base, small_config, write_records

Told = TypeVar("Told")

WHY = Circumstances(OrderChoice(kind="cyclic", depends_on_history=False), {"s3t_ray": "0.1"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A trained run that nobody has open."""
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", "p") for number in range(30)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    return tmp_path / "run"


def anew(root: Path, act: Callable[[Run], Told]) -> Told:
    """As a process does that has just started."""
    with Run.open(root) as run:
        return act(run)


def tombstoned(root: Path) -> bytes:
    """The id HMAC of a record in training, which is about to get a tombstone."""
    return Keys.load(root.parent / "run.keys").id_hmac("r3")


def test_every_keyed_write_is_done_by_a_process_that_has_just_opened_the_run(root: Path) -> None:
    def log_of(run: Run) -> list[str]:
        return [row.kind for row in run.ledger.log()]

    def export(folder: Path) -> None:
        folder.mkdir()
        (folder / EXPORTED_FILES[0]).write_bytes(b"weights")
        stages = anew(root, lambda run: tuple(stage.id for stage in run.ledger.stages(state=StageState.LIVE)))
        anew(root, lambda run: run.ledger.exports.note(0, ExportedFolder(str(folder), stages, EXPORTED_FILES)))

    def purge(shard: int) -> None:
        anew(root, lambda run: purge_shard(run, epoch, shard))

    name, out = tombstoned(root), root.parent / "out"
    export(out)
    said = RequestDetails(requester="Ann", reference="case-1")
    request = anew(root, lambda run: run.ledger.accept_deletion([name], details=said)).receipt.request_id
    anew(root, lambda run: run.ledger.accept_deletion([name], details=RequestDetails(reference="case-2")))
    epoch = anew(root, lambda run: run.ledger.take_lease("by hand"))
    for shard in (-1, 0, 1):
        purge(shard)
    assert list(out.iterdir()) == []
    anew(root, lambda run: run.ledger.advance(epoch, request, DeletionState.PRUNED))
    anew(root, lambda run: run.ledger.advance(epoch, request, DeletionState.PURGED))
    anew(root, lambda run: run.ledger.certify(epoch, request, WHY, final=False))
    anew(root, lambda run: run.ledger.certify(epoch, request, WHY, final=True))
    (row,) = anew(root, lambda run: run.ledger.requests.of()).values()
    assert [each.details for each in row] == [RequestDetails("case-1"), RequestDetails("case-2")]
    next_key = FileSigner(bytes(range(32)))
    anew(root, lambda run: run.ledger.change_key(next_key, "rotation", None))
    assert anew(root, log_of) == ["run", "export", "receipt", "export", "interim", "certificate", "key"]


def test_whoever_asks_for_contradictions_has_the_seals_checked(root: Path) -> None:
    assert anew(root, lambda run: run.ledger.contradictions()) == ()
    ledger = sqlite3.connect(root / "ledger.db")
    with ledger:
        ledger.execute("UPDATE s3t_records SET subject_hmac = zeroblob(32)")
    ledger.close()
    (told,) = anew(root, lambda run: run.ledger.contradictions())
    assert "another id, subject or place than the keys sealed" in told


def test_a_write_that_needs_lost_keys_leaves_nothing_behind(root: Path) -> None:
    name = tombstoned(root)
    (root.parent / "run.keys" / MASTER_FILE).unlink()
    with Run.open(root) as run:
        before = run.ledger.events()
        with pytest.raises(LedgerError, match="the run's keys are lost"):
            run.ledger.accept_deletion([name])
        with pytest.raises(LedgerError, match="the run's keys are lost"):
            run.ledger.exports.note(0, ExportedFolder("somewhere", (), EXPORTED_FILES))
        assert run.ledger.take_lease("needs none") == 3
        assert run.ledger.deletions() == () and run.ledger.exports.all() == ()
        assert run.ledger.events()[: len(before)] == before
