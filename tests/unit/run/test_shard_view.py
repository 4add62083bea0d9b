"""Which shards a round must look at again."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.run.shard_view import Views, view_shard
from tests.fakes import Cluster, fake_base, small_config, write_records


def test_each_reader_hears_of_a_change_once(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [("r1", None)])
    run = Cluster(small_config(tmp_path)).run
    views = Views({shard: view_shard(run, shard) for shard in (-1, 0, 1)})
    assert views.take_changed("one") == {-1, 0, 1}, "all are new to it"
    assert views.take_changed("one") == set()
    views[1] = view_shard(run, 1)
    assert views.take_changed("one") == {1}
    assert views.take_changed("other") == {-1, 0, 1}
    views.put({0: view_shard(run, 0)})
    views.touch(-1)
    assert views.take_changed("one") == views.take_changed("other") == {-1, 0}
