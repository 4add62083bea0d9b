"""What a run waits for is in its status, unless a scheduler that is gone recorded it."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.run.status import status
from s3t_ray.run.waiting import note_waiting
from tests.fakes import Cluster, fake_base, small_config, write_records


def test_it_is_in_the_status_until_it_is_over_or_another_scheduler_begins(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    run = Cluster(small_config(tmp_path)).run
    assert status(run).waiting is None
    note_waiting(run, "1 worker group waits for 1 GPU")
    assert status(run).waiting == "1 worker group waits for 1 GPU"
    note_waiting(run, None)
    assert status(run).waiting is None
    note_waiting(run, "1 worker group waits for 1 GPU")
    run.ledger.take_lease("another")
    assert status(run).waiting is None
