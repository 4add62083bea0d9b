"""Late or foreign files: from a worker that was suspended during a purge, an erased adapter, junk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from s3t_ray.audit.verify import verify
from s3t_ray.ledger.values import StageState
from s3t_ray.run import deletion
from s3t_ray.store.manifest import write_manifest
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.fence import is_overtaken, raise_fence
from s3t_ray.train.job import StageJob
from tests.fakes import Cluster, adapters, fake_base, small_config, write_records


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    made = Cluster(small_config(tmp_path))
    made.settle()
    return made


def test_a_worker_that_slept_through_the_purge_leaves_nothing(cluster: Cluster) -> None:
    """Asleep between its look at the fence and its write, it looks again and erases what it wrote."""
    deletion.accept(cluster.run, ["r3"], [])
    slept: list[StageJob] = []

    def sleep(job: StageJob) -> None:
        if not slept:
            slept.append(job)
            raise_fence(cluster.run.store, job.shard, {part.slice: "0" * 64 for part in job.slices})

    cluster.workers.before_write = sleep
    while not slept:
        cluster.scheduler.tick(0)
    assert not cluster.run.store.files(f"stages/{slept[0].stage_id}")
    assert is_overtaken(cluster.run.store, slept[0])
    row = next(row for row in cluster.run.ledger.stages(slept[0].shard) if row.state is StageState.PURGED)
    assert row.id != slept[0].stage_id


def test_an_erased_adapter_under_a_wanted_name_is_not_adopted(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "run" / "stages", tmp_path / "old")
    receipt = deletion.accept(cluster.run, ["r3"], [])
    cluster.run.close()
    cluster = Cluster(small_config(tmp_path), groups=0)  # nothing is trained: what was pruned stays missing
    for _ in range(20):
        cluster.scheduler.tick(0)
    views = cluster.scheduler.views.values()
    stages = [stage for view in views for stage in view.plan.stages.values() if stage.id in view.missing]
    wanted = {(stage.shard, stage.slices): stage for stage in stages}
    gone = {(row.shard, row.slices): row.id for row in cluster.run.ledger.stages(state=StageState.PURGED)}
    assert gone.keys() & wanted.keys() and set(gone.values()) == set(receipt.stages_pruned)
    for place, name in gone.items():
        target = tmp_path / "run" / "stages" / wanted[place].id
        shutil.copytree(tmp_path / "old" / name, target)
        (target / "manifest.json").write_text((target / "manifest.json").read_text().replace(name, wanted[place].id))
        said = read_manifest(cluster.run.store, wanted[place].id)
        (target / "manifest.json").write_bytes(write_manifest(said))
    cluster.run.close()
    again = Cluster(small_config(tmp_path))
    assert not [row for row in again.run.ledger.stages(state=StageState.LIVE) if (row.shard, row.slices) in gone]
    again.settle()
    certificate = again.run.ledger.certificates()[-1].facts
    pruned = {proof.adapter_sha256 for proof in certificate.stages_pruned}
    assert not pruned & {proof.adapter_sha256 for proof in certificate.stages_live}
    assert len(adapters(again.run)) > 0 and verify(again.run).problems == ()


def test_junk_among_the_rejects_keeps_no_receipt_back_and_goes_with_the_purge(cluster: Cluster) -> None:
    cluster.run.store.write_bytes("rejects/rejects.jsonl", b"{not json\n\xff\xfe\n[1]\n")
    assert any("3 lines are not rows" in line for line in verify(cluster.run).problems)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    assert receipt.proof is not None and receipt.note is None
    cluster.settle()
    assert verify(cluster.run).problems == ()
    assert cluster.run.store.read_bytes("rejects/rejects.jsonl") == b""


def test_a_request_that_names_only_what_is_deleted_already_is_carried_to_its_end(cluster: Cluster) -> None:
    deletion.accept(cluster.run, ["r3", "r4"], [])
    deletion.accept(cluster.run, ["r3"], [])  # another request, which hits no shard
    cluster.settle()
    assert [row.state for row in cluster.run.ledger.deletions()] == ["restored", "restored"]
