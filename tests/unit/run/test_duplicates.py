"""Duplicates of a deleted record, from the data to the receipt, with the hashing trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.audit.verify import verify
from s3t_ray.errors import LedgerError
from s3t_ray.ledger.values import DeletionState, Reach
from s3t_ray.run import deletion
from s3t_ray.run.status import status
from tests.fakes import Cluster, fake_base, small_config, write_records

POEM = (
    "the quick brown fox jumps over the lazy dog and then it sleeps all day long under the old apple tree by the river"
)
RECORDS = [(f"r{number}", f"p{number % 5}") for number in range(30)]
TEXTS = {
    "r1": POEM,
    "r6": POEM.replace("river", "lake"),  # of p1, who has r1 too
    "r12": POEM.replace("old apple", "small pear"),
    "r20": "something else entirely that shares no five words in a row with any other record of this run at all",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    path = write_records(tmp_path / "data.jsonl", RECORDS, TEXTS)
    lines = path.read_text().replace('"instruction": "say r1"', '"instruction": "say a poem"')
    lines = lines.replace('"instruction": "say r6"', '"instruction": "say a poem"')
    copy = lines.splitlines()[1].replace('"id": "r1"', '"id": "copy"').replace('"subject": "p1"', '"subject": null')
    path.write_text(f"{lines}{copy}\n")
    return tmp_path


def trained(folder: Path, **changes: object) -> Cluster:
    cluster = Cluster(small_config(folder, **changes))
    cluster.settle()
    return cluster


def test_a_deletion_lists_what_stays_by_hidden_subject(folder: Path) -> None:
    run = trained(folder).run
    found = deletion.preview(run, ["r1"], []).likeness
    assert found is not None and found.near_duplicates is not None
    assert [(row.subject, row.records) for row in found.duplicates.subjects] == [(None, 1)]
    p1 = run.keys.subject_hmac("p1").hex()
    assert [(row.subject, row.records) for row in found.near_duplicates.subjects] == [(p1[:12], 1)]
    receipt = deletion.accept(run, ["r1"], [])
    assert receipt.records == 1 and receipt.likeness == found
    assert status(run).records == len(RECORDS)


@pytest.mark.parametrize(("reach", "gone"), [(Reach.DUPLICATES, 2), (Reach.NEAR_DUPLICATES, 3)])
def test_they_go_along_when_asked_to(folder: Path, reach: Reach, gone: int) -> None:
    cluster = trained(folder)
    impact = deletion.preview(cluster.run, ["r1"], [], reach)
    receipt = deletion.accept(cluster.run, ["r1"], [], reach)
    assert receipt.records == impact.records == gone
    assert receipt.shards == impact.shards
    assert receipt.likeness is not None and receipt.likeness.taken_along == gone - 1
    cluster.settle()
    assert status(cluster.run).records == len(RECORDS) + 1 - gone
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert verify(cluster.run).problems == ()
    again = deletion.accept(cluster.run, ["r1"], [], reach)
    assert again.repeated and again.request_id == receipt.request_id
    assert again.likeness is not None and again.likeness.forgotten == 1


def test_a_run_can_do_without_sketches(folder: Path) -> None:
    cluster = trained(folder, closure={"near_duplicates": False})
    found = deletion.preview(cluster.run, ["r1"], []).likeness
    assert found is not None and found.near_duplicates is None and found.duplicates.records == 1
    with pytest.raises(LedgerError, match="sketches"):
        deletion.accept(cluster.run, ["r1"], [], Reach.NEAR_DUPLICATES)


def test_the_threshold_may_change_later(folder: Path) -> None:
    trained(folder)
    looser = trained(folder, closure={"threshold": 0.4})
    assert looser.workers.trained == []
    found = deletion.preview(looser.run, ["r1"], []).likeness
    assert found is not None and found.near_duplicates is not None and found.near_duplicates.records >= 1
    assert found.threshold == 0.4
