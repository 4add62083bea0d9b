"""`s3t restore` on a run made with the hashing trainer: a backup, what was deleted since, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import ConfigError, LedgerError
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t

ENTRIES = "?" * 9 + ".json"
"""Entries in a log's copy, by number; files of names begin with a deletion's id."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was brought back from a backup, and has lost two deletions and a change of key."""
    folder = tmp_path_factory.mktemp("origin")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", f"p{number % 5}") for number in range(12)])
    cluster = Cluster(small_config(folder, ledger={"log_copy": str(folder / "elsewhere")}))
    cluster.settle()
    cluster.run.ledger._database.forget_overwritten()
    shutil.copytree(folder / "run", folder / "backup")
    deletion.accept(cluster.run, ["r3"], [])
    cluster.run.close()
    rotated = s3t("rotate-key", str(folder / "run"))
    assert rotated.exit_code == 0, rotated.stderr
    with Run.open(folder / "run") as run:
        deletion.accept(run, [], ["p1"])
    shutil.rmtree(folder / "run")
    (folder / "backup").rename(folder / "run")
    return folder


def test_what_was_deleted_since_is_deleted_again(origin: Path) -> None:
    run = str(origin / "run")
    refused = s3t("delete", run, "--id", "r7", "--no-wait")
    assert refused.exit_code == LedgerError.exit_code and "s3t restore" in refused.stderr
    wanted = {facts["request_id"] for facts in _receipts(origin)}
    done = s3t("restore", run, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["lost_entries"] == 3 and set(report["deletions"]) == wanted
    assert "signs it again" in done.stderr
    with Run.open(origin / "run") as opened:
        assert {row.receipt.request_id for row in opened.ledger.deletions(DeletionState.ACCEPTED)} == wanted
        assert [row.kind for row in opened.ledger.log()] == ["run", "key", "receipt", "receipt"]
    again = s3t("restore", run)
    assert again.exit_code == 0 and "nothing to do" in again.stdout


def test_whoever_has_the_first_receipt_is_told_what_became_of_it(origin: Path) -> None:
    s3t("restore", str(origin / "run"))
    kept = {path.read_text() for path in (origin / "elsewhere").rglob("*.json")}
    first = sorted(text for text in kept if '"format":"s3t/receipt/1"' in text)
    with Run.open(origin / "run", read_only=True) as run:
        texts = {row.text for row in run.ledger.log()}
        old = [text for text in first if text not in texts]
        told = [line for line in audit(run, known=old).problems if "receipt of deletion" in line]
    assert len(old) == len(told) == 2
    assert sum("but its key signs only the run's entries" in line for line in told) == 1, "the log has no such entry"
    assert sum("which has another of that deletion as entry" in line for line in told) == 1


def test_without_a_copy_of_the_log_nothing_is_done(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(12)])
    Cluster(small_config(tmp_path)).run.close()
    result = s3t("restore", str(tmp_path / "run"))
    assert result.exit_code == ConfigError.exit_code
    assert "names no ledger.log_copy" in result.stderr and "delete by name" in result.stderr


def _receipts(folder: Path) -> list[dict[str, str]]:
    (copied,) = (folder / "elsewhere").iterdir()
    entries = [json.loads(path.read_text()) for path in copied.glob(ENTRIES)]
    return [entry["facts"] for entry in entries if entry["format"] == "s3t/receipt/1"]
