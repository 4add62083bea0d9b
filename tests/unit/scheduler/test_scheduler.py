"""The complete orchestration with the hashing trainer: the live set equals a training without deleted records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.audit.verify import verify
from s3t_ray.errors import ConfigError, DataError, UnknownRecords
from s3t_ray.ledger.values import DeletionState, Fenced, StageState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from tests.fakes import Cluster, adapters, fake_base, small_config, write_records

PEOPLE = [(f"r{number}", f"p{number % 7}") for number in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", PEOPLE)
    return tmp_path


def trained(folder: Path, **changes: object) -> Cluster:
    cluster = Cluster(small_config(folder, **changes))
    cluster.settle()
    return cluster


def from_scratch_without(folder: Path, tmp: Path, gone: set[str], **changes: object) -> dict[Any, Any]:
    """Adapters of a run that never held the records `gone`."""
    tmp.mkdir()
    write_records(tmp / "data.jsonl", [(i, s) for i, s in PEOPLE if i not in gone])
    fake_base(tmp / "base")
    return adapters(trained(tmp, **changes).run)


def test_every_wanted_stage_is_trained_once_and_shared_prefixes_are_shared(folder: Path) -> None:
    cluster = trained(folder, order={"kind": "explicit", "sequences": [[0, 1, 2], [0, 2, 1]]})
    names = [job.stage_id for job in cluster.workers.trained]
    assert len(names) == len(set(names)) == 2 * 5  # 2 shards, 6 stages with the first shared
    assert all(shard.depths == (3, 3) for shard in status(cluster.run).shards)
    assert status(cluster.run).settled


def test_running_again_trains_nothing(folder: Path) -> None:
    trained(folder)
    again = trained(folder)
    assert again.workers.trained == []


def test_a_larger_budget_trains_only_the_new_sequences(folder: Path) -> None:
    before = {job.stage_id for job in trained(folder).workers.trained}
    more = trained(folder, budget=3)
    assert {job.stage_id for job in more.workers.trained}.isdisjoint(before)
    assert len(more.workers.trained) == 2 * 3


def test_a_smaller_budget_takes_the_other_sequences_out_of_service_and_erases_them(folder: Path) -> None:
    trained(folder)
    fewer = trained(folder, budget=1)
    live = {stage.id for stage in fewer.run.ledger.stages(state=StageState.LIVE)}
    assert len(live) == 2 * 3
    assert {path.split("/")[1] for path in fewer.run.store.files("stages")} == live


@pytest.mark.parametrize("order", [{"kind": "cyclic"}, {"kind": "random"}, {"kind": "chains"}])
def test_after_a_deletion_live_adapters_are_those_of_a_training_without_it(
    folder: Path, tmp_path: Path, order: dict[Any, Any]
) -> None:
    cluster = trained(folder, order=order)
    receipt = deletion.accept(cluster.run, ["r3", "r18"], ["p5"])
    gone = {"r3", "r18"} | {i for i, s in PEOPLE if s == "p5"}
    assert receipt.records == len(gone)
    cluster.settle()
    assert adapters(cluster.run) == from_scratch_without(folder, tmp_path / "fresh", gone, order=order)
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
    assert verify(cluster.run).problems == ()


def test_from_the_receipt_on_no_stage_that_saw_the_record_is_live(folder: Path) -> None:
    cluster = trained(folder)
    before = {stage.id: stage for stage in cluster.run.ledger.stages(state=StageState.LIVE)}
    receipt = deletion.accept(cluster.run, ["r3"], [])
    (hit,) = cluster.run.ledger.deletion(receipt.request_id).receipt.hits
    live = {stage.id for stage in cluster.run.ledger.stages(state=StageState.LIVE)}
    saw = {name for name, stage in before.items() if stage.shard == hit.shard and hit.slice in stage.slices}
    assert saw and saw == before.keys() - live == set(receipt.stages_pruned)
    assert receipt.shards[0].depths_after == status(cluster.run).shards[hit.shard].depths


def test_replicas_hear_of_the_smaller_live_set_before_the_deletion_is_pruned(folder: Path) -> None:
    cluster = trained(folder)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    cluster.replicas.live.clear()
    told: list[DeletionState] = []
    original = cluster.replicas.set_live

    def look(chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        told.append(cluster.run.ledger.deletion(receipt.request_id).state)
        return original(chains)

    cluster.replicas.set_live = look  # type: ignore[method-assign]
    cluster.settle()
    assert told[0] is DeletionState.ACCEPTED
    first = {name for chain in cluster.replicas.live[0].values() for name in chain}
    assert first.isdisjoint(receipt.stages_pruned)


def test_a_stage_whose_data_is_deleted_while_it_trains_never_counts(folder: Path) -> None:
    cluster = Cluster(small_config(folder))
    hit: list[str] = []

    def delete_now(job: object) -> None:
        if not hit:
            hit.extend(deletion.accept(cluster.run, [name for name, _ in PEOPLE[:20]], []).stages_pruned)
            hit.append(job.stage_id)  # type: ignore[attr-defined]

    cluster.workers.before_publish = delete_now
    cluster.settle()
    live = {stage.id for stage in cluster.run.ledger.stages(state=StageState.LIVE)}
    assert live.isdisjoint(hit)
    assert {path.split("/")[1] for path in cluster.run.store.files("stages")} == live
    assert verify(cluster.run).problems == ()


def test_no_byte_of_a_deleted_record_is_left_in_the_storage(folder: Path) -> None:
    marker = "MARKER-4f1d"
    write_records(folder / "data.jsonl", PEOPLE, {"r3": marker})
    cluster = trained(folder)
    root = Path(cluster.run.location.storage_uri)

    def holds_marker() -> list[str]:
        found = []
        for path in root.rglob("*.parquet"):
            from s3t_ray.data.slices import read_slice

            found += [row.id for row in read_slice(path) if marker in row.content]
        found += [str(p) for p in root.rglob("*") if p.is_file() and marker.encode() in p.read_bytes()]
        return found

    assert holds_marker() == ["r3"]
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    assert holds_marker() == []


def test_deleting_twice_is_one_deletion(folder: Path) -> None:
    cluster = trained(folder)
    first = deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    again = deletion.accept(cluster.run, ["r3"], [])
    assert again.request_id == first.request_id and again.repeated
    cluster.settle()
    assert len(cluster.run.ledger.certificates()) == 1


def test_unknown_ids_are_listed_and_known_ones_go_on(folder: Path) -> None:
    cluster = trained(folder)
    receipt = deletion.accept(cluster.run, ["r3", "nobody"], ["no one"])
    assert (receipt.unknown_ids, receipt.unknown_subjects, receipt.records) == (("nobody",), ("no one",), 1)
    with pytest.raises(UnknownRecords):
        deletion.accept(cluster.run, ["nobody"], [])


def test_a_dry_run_changes_nothing_and_tells_what_the_deletion_then_does(folder: Path) -> None:
    cluster = trained(folder)
    before = (cluster.run.ledger.slices(), cluster.run.ledger.stages())
    impact = deletion.preview(cluster.run, ["r3"], ["p1"])
    assert (cluster.run.ledger.slices(), cluster.run.ledger.stages()) == before
    receipt = deletion.accept(cluster.run, ["r3"], ["p1"])
    assert receipt.shards == impact.shards and receipt.records == impact.records
    trained_before = len(cluster.workers.trained)
    cluster.settle()
    assert len(cluster.workers.trained) - trained_before == sum(shard.retrain_stages for shard in impact.shards)


def test_lazy_heals_only_below_its_floor(folder: Path) -> None:
    cluster = trained(folder, requeue={"policy": "lazy", "floor": 1})
    count = len(cluster.workers.trained)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    assert receipt.shards[0].depths_after and max(receipt.shards[0].depths_after) >= 1
    assert len(cluster.workers.trained) == count
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED


def test_batch_waits_for_its_window(folder: Path) -> None:
    cluster = trained(folder, requeue={"policy": "batch", "window_seconds": 50})
    count = len(cluster.workers.trained)
    deletion.accept(cluster.run, ["r3"], [])
    for _ in range(40):
        cluster.now += 1
        cluster.scheduler.tick(0)
    assert len(cluster.workers.trained) == count
    cluster.settle()
    assert len(cluster.workers.trained) > count


def test_held_out_records_can_be_deleted(folder: Path) -> None:
    write_records(folder / "held.jsonl", [("h1", "p1"), ("h2", None)])
    data = {"path": str(folder / "data.jsonl"), "subject_field": "subject", "holdout_path": str(folder / "held.jsonl")}
    cluster = trained(folder, data=data)
    receipt = deletion.accept(cluster.run, ["h1"], [])
    assert receipt.records == 1 and receipt.stages_pruned == ()
    cluster.settle()
    assert status(cluster.run).held_out == 1 and status(cluster.run).settled


def test_a_stage_that_keeps_failing_is_given_up_and_its_error_is_shown(folder: Path) -> None:
    cluster = Cluster(small_config(folder), fail=lambda job: "boom" if job.shard == 1 else None)
    cluster.settle()
    assert len(cluster.scheduler.retries.given_up) == 2
    state = status(cluster.run)
    assert {failure.error for failure in state.failures} == {"boom"} and not state.settled
    assert state.shards[0].depths == (3, 3) and state.shards[1].depths == (0, 0)


def test_a_scheduler_with_an_old_epoch_is_refused(folder: Path) -> None:
    old = trained(folder)
    trained(folder)
    with pytest.raises(Fenced):
        old.scheduler.tick(0)


def test_what_was_published_and_not_accepted_is_accepted_not_trained_again(folder: Path) -> None:
    first = Cluster(small_config(folder))
    first.scheduler.tick(0)
    finished = first.workers.finished(0)  # published; the scheduler dies before it hears of it
    second = trained(folder)
    assert {f.stage_id for f in finished}.isdisjoint(job.stage_id for job in second.workers.trained)


def test_bytes_that_nobody_accounts_for_are_erased_at_the_start(folder: Path) -> None:
    cluster = trained(folder)
    cluster.run.store.write_bytes("stages/" + "ab" * 32 + "/adapter_model.safetensors", b"left by a crash")
    assert "should be gone" in verify(cluster.run).problems[0]
    assert verify(trained(folder).run).problems == ()


def test_another_recipe_is_refused_naming_the_field(folder: Path) -> None:
    trained(folder)
    with pytest.raises(ConfigError, match="optimizer"):
        Run.create(small_config(folder, optimizer={"lr": 0.5}))


def test_a_duplicate_id_is_refused_by_name_and_leaves_no_run(folder: Path) -> None:
    write_records(folder / "data.jsonl", [*PEOPLE, ("r3", None)])
    with pytest.raises(DataError, match="'r3'"):
        Cluster(small_config(folder))
    write_records(folder / "data.jsonl", PEOPLE)
    trained(folder)


def test_verify_finds_each_tampering(folder: Path) -> None:
    cluster = trained(folder)
    root = Path(cluster.run.location.storage_uri)
    assert verify(cluster.run).problems == ()
    adapter = next(iter(root.glob("stages/*/adapter_model.safetensors")))
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert any("not what was published" in line for line in verify(cluster.run).problems)
    adapter.write_bytes(whole)
    rows = next(path for path in root.glob("slices/*/*/*.parquet") if path.stat().st_size > 700)
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-9] + b"X" + whole[-8:])
    assert any("was changed" in line for line in verify(cluster.run).problems)
    rows.write_bytes(whole)
    assert verify(cluster.run).problems == ()


def test_files_of_an_ingest_that_was_killed_are_erased_by_the_next(folder: Path) -> None:
    config = small_config(folder)
    with Run.create(config) as run:
        run.store.write_bytes("slices/0/0/" + "ab" * 32 + ".parquet", b"rows of an attempt that was killed")
    assert verify(trained(folder).run).problems == ()
