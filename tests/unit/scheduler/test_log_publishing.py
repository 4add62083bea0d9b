"""A log that cannot be published delays nothing, is shown as a failure, and is published when it can be."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.run import deletion
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.published_log import published
from s3t_ray.run.status import status
from s3t_ray.store import layout
from s3t_ray.tlog.cosignature import Cosigner
from s3t_ray.tlog.log_head import LogHead
from tests.fakes import Cluster, fake_base, small_config, write_records


def size_of(cluster: Cluster) -> int:
    note = published(cluster.run)
    return 0 if note is None else LogHead.parse(note.text).size


def test_a_log_that_cannot_be_published_is_told_of_and_published_later(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    assert size_of(cluster) == 1
    folder = tmp_path / "run" / layout.LOG
    folder.rename(tmp_path / "aside")
    folder.write_bytes(b"")  # a file where the folder must be
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    shown = status(cluster.run)
    assert [deletion.state for deletion in shown.deletions] == ["restored"]
    assert [(failure.kind, failure.title) for failure in shown.failures] == [("log", "the published log")]
    attempts = shown.failures[0].attempts
    cluster.scheduler.tick(0)
    assert status(cluster.run).failures[0].attempts == attempts, "it waits before it tries again"
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    cluster.now += 120.0
    cluster.settle()
    assert status(cluster.run).failures == ()
    assert size_of(cluster) == 4


def test_a_scheduler_that_follows_publishes_what_its_predecessor_could_not(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    first = Cluster(small_config(tmp_path))
    first.settle()
    deletion.accept(first.run, ["r3"], [])
    (tmp_path / "run" / CHECKPOINT).unlink()
    first.run.close()
    following = Cluster(small_config(tmp_path))
    following.settle()
    assert size_of(following) == 4
    following.run.close()


def test_at_its_end_a_scheduler_waits_for_the_witnesses(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    key = Cosigner("w.example", Ed25519PrivateKey.from_private_bytes(b"w" * 32)).key
    cluster = Cluster(small_config(tmp_path, log={"witnesses": [f"http://127.0.0.1:9 {key}"]}))  # nobody listens there
    cluster.scheduler.tick(0)
    cluster.scheduler.end(60.0)
    failure = status(cluster.run).failures[0]
    assert failure.kind == "log" and "w.example" in failure.error
    assert size_of(cluster) == 1
    cluster.run.close()
