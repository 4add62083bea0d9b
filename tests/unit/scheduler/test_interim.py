"""Under a stream of deletions that never stops, each has its interim certificate within a bound; then all finish."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.run import deletion
from tests.fakes import Cluster, fake_base, small_config, write_records

BOUND = 3
"""Rounds of the scheduler from a receipt to the interim certificate."""


def test_a_steady_stream_delays_no_interim_certificate(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(60)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    accepted: dict[str, int] = {}
    for turn in range(30):
        accepted[deletion.accept(cluster.run, [f"r{turn}"], []).request_id] = turn
        cluster.now += 1.0
        cluster.scheduler.tick(0)
        interim = {row.request_id for row in cluster.run.ledger.log((EntryKind.INTERIM,))}
        late = [name for name, since in accepted.items() if turn - since >= BOUND and name not in interim]
        assert late == []
    cluster.settle()
    finals = {row.request_id for row in cluster.run.ledger.log((EntryKind.CERTIFICATE,))}
    assert finals == accepted.keys()
    assert cluster.run.ledger.contradictions() == ()
