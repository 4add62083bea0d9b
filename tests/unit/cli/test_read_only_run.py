"""A run where nothing can be written is looked at all the same; what would write says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3t_ray.errors import LedgerError
from s3t_ray.run import deletion
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a pending deletion, whose ledger no connection can write beside: as on a read-only disk."""
    folder = tmp_path_factory.mktemp("read-only")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", f"p{number % 5}") for number in range(12)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    deletion.accept(cluster.run, ["r3"], [])
    cluster.run.close()
    (folder / "run" / "ledger.db-shm").mkdir()  # also root cannot make a file of this name
    return folder / "run"


def test_status_and_deletions_are_read_from_a_copy_of_the_ledger(root: Path) -> None:
    for command in ("status", "deletions"):
        shown = s3t(command, str(root), "--json")
        assert shown.exit_code == 0, shown.stderr
        assert [each["state"] for each in json.loads(shown.stdout)["deletions"]] == ["accepted"]


def test_nothing_is_deleted_in_a_copy(root: Path) -> None:
    refused = s3t("delete", str(root), "--id", "r5", "--no-wait")
    assert refused.exit_code == LedgerError.exit_code and "ledger.db refused: " in refused.stderr


def test_a_run_that_was_taken_back_is_refused_there_too(root: Path) -> None:
    (memory,) = (root.parent / "run.keys").glob("*.log.json")
    told = json.loads(memory.read_text())
    memory.write_text(json.dumps({**told, "sequence": told["sequence"] + 1, "hash": "0" * 64}))
    refused = s3t("status", str(root))
    assert refused.exit_code == LedgerError.exit_code and "the ledger does not have it" in refused.stderr
