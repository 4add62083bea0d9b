"""A deletion on a cluster without room to heal: the records are still erased, and the status says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.errors import ClusterError
from s3t_ray.run.deletion import accept
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.runtime.delete import settle
from tests.fakes import fake_base, small_config, write_records


def test_what_cannot_heal_is_erased_and_said(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(40)])
    config = small_config(tmp_path, engine={"ranks": 8}, workers={"groups": 2, "gpus_per_rank": 1})
    with Run.create(config) as run:
        ingest(run, lambda line: None)
        receipt = accept(run, ["r7"], [])
        with pytest.raises(ClusterError, match=r"erased, but .*'GPU': 1.* room for 0"):
            settle(run, receipt.request_id)
        (deletion,) = status(run).deletions
        assert (deletion.request_id, deletion.state) == (receipt.request_id, "purged")
