"""After `purged`, no byte of a deleted record is in the run's storage, nor in copies that the run knows of.

A marker stands in a record, in rows that were set aside, in an export, and in whatever a training or a
killed process may have left; every byte is searched before and after, Parquet decompressed, SQLite's
own files included. `tests/e2e` does the same with really stored hidden states.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.audit.verify import verify
from s3t_ray.config.schema import Config
from s3t_ray.data.minhash import Sketcher
from s3t_ray.data.slices import read_slice
from s3t_ray.ensemble.peft_export import export
from s3t_ray.errors import ConfigError, LedgerError, StoreError, UnknownRecords
from s3t_ray.ledger.values import DeletionState, ExportedFolder
from s3t_ray.run import deletion
from s3t_ray.run.exports import purge_exports
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.scheduler import purge
from s3t_ray.scheduler.purge import KINDS, Kind, purge_shard
from s3t_ray.store import layout
from s3t_ray.store.manifest import ADAPTER_FILE
from tests.fakes import Cluster, fake_base, small_config, write_records

MARKER = "marker-7c1f"
PEOPLE = [(f"r{number}", f"p{number % 7}") for number in range(30)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    path = write_records(tmp_path / "data.jsonl", PEOPLE, {"r3": f"my secret is {MARKER}"})
    malformed = [
        {"id": "x1", "instruction": MARKER, "subject": "p3"},  # r3's person
        {"id": "r3", "instruction": MARKER, "subject": "p6"},
        {"id": ["no id"], "instruction": MARKER},
        {"id": "x2", "instruction": "somebody else's", "subject": "p5"},
        {"id": "x3", "instruction": "somebody", "subject": "only here"},
    ]
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in malformed)
    return tmp_path


def config_of(folder: Path) -> Config:
    data = {"path": str(folder / "data.jsonl"), "subject_field": "subject", "on_malformed": "set_aside"}
    return small_config(folder, data=data)


def holds(root: Path, secret: bytes) -> list[str]:
    """Files in which these bytes stand, as they are or in a slice's rows."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            whole = path.read_bytes()
            if path.suffix == ".parquet":
                whole += b"".join(row.id.encode() + row.content.encode() + row.digest for row in read_slice(path))
            if secret in whole:
                found.append(str(path.relative_to(root)))
    return found


def leave_everywhere(run: Run, exported: Path) -> dict[str, list[Path]]:
    """What training, serving and killed processes may have made of r3, by hand: the trainer here only hashes.

    By kind of data; the rows themselves, and those set aside, are there already.
    """
    shard = deletion.preview(run, ["r3"], []).shards[0]
    (index,) = shard.slices
    state = next(state for state in run.ledger.slices(shard.shard) if state.slice == index)
    stage = next(stage for stage in view_shard(run, shard.shard).plan.stages.values() if index in stage.slices)
    hidden = f"hidden/{run.row.base_digest[:16]}/{shard.shard}/{index}"
    paths = {
        layout.HIDDEN: [
            f"{hidden}/{state.digest}/layer-4/part-0.safetensors",
            f"{hidden}/{state.digest}/layer-2/tmp-part-0.safetensors-{'0' * 16}",
            f"{hidden}/{'1' * 64}/layer-2/tmp-part-0.safetensors-{'0' * 16}",
        ],
        layout.CHECKPOINTS: [f"checkpoints/{stage.id}/000000002/rank-0.safetensors"],
        layout.STAGES: [
            f"stages/{stage.id}/adapter_model.safetensors",
            f"stages/tmp-{stage.id}-{'0' * 16}/adapter_model.safetensors",
        ],
        layout.SLICES: [
            f"slices/{shard.shard}/{index}/tmp-{'2' * 64}.parquet-{'0' * 16}",
            f"slices/{shard.shard}/{index}/tmp-purge-x/clean.parquet.partial",
        ],
        layout.REJECTS: [f"rejects/tmp-rejects.jsonl-{'0' * 16}"],
        layout.REPLAY: [
            "replay/0a0b/slices/0/0/copy.jsonl",
            f"replay/0a0b/stages/{stage.id}/adapter_model.safetensors",
        ],
    }
    root = Path(run.location.storage_uri)
    left = {root_of: [root / path for path in each] for root_of, each in paths.items()}
    left[OUTSIDE] = [exported / "adapter_model.safetensors"]
    for path in (path for each in left.values() for path in each):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"made of " + MARKER.encode())
    (exported / "mine.txt").write_text("not the run's")
    run.ledger.exports.note(shard.shard, ExportedFolder(str(exported), (stage.id,), ("adapter_model.safetensors",)))
    return left


OUTSIDE = "outside the storage"


def purge_alone(cluster: Cluster) -> None:
    """Bring what was deleted as far as `purged`, and train nothing."""
    groups, cluster.workers.groups = cluster.workers.groups, 0
    for _ in range(3):
        cluster.scheduler.tick(0)
    cluster.workers.groups = groups


def test_no_byte_is_left_anywhere(folder: Path) -> None:
    cluster = Cluster(config_of(folder))
    cluster.settle()
    run, root, exported = cluster.run, folder / "run", folder / "exported"
    left = leave_everywhere(run, exported)
    assert left.keys() == {kind.root or OUTSIDE for kind in KINDS}, "a kind of derived data that this test leaves out"
    inside = [str(path.relative_to(root)) for kind, each in left.items() if kind != OUTSIDE for path in each]
    before = holds(root, MARKER.encode())
    assert set(inside) | {"rejects/rejects.jsonl"} <= set(before)
    assert len(before) == len(inside) + 2, "and the slice with its row"
    assert holds(exported, MARKER.encode())

    file, content = where_it_lies(run, "r3")
    keyed = {
        "content HMAC": run.keys.content_hmac(content),
        "record digest": run.keys.record_digest("r3", content),
        "signature": Sketcher(64, 5, run.keys.shingle_hash).sketch(content),
        "digest of its slice's file": file.encode(),
    }
    for name, secret in keyed.items():
        assert holds(root, secret), f"{name} is looked for in the right places"

    receipt = deletion.accept(run, ["r3"], [])
    purge_alone(cluster)
    for state in (DeletionState.PURGED, DeletionState.RESTORED):
        assert run.ledger.deletion(receipt.request_id).state is state
        assert holds(root, MARKER.encode()) == holds(exported, MARKER.encode()) == []
        for name, secret in keyed.items():
            assert holds(root, secret) == [], name
        cluster.settle()
    assert (exported / "mine.txt").exists(), "files that the run did not write are not its to erase"
    assert set_aside(folder) == ["x2", "x3"]
    assert audit(run).problems == ()


@pytest.mark.parametrize("lacking", KINDS, ids=lambda kind: kind.root or OUTSIDE)
def test_without_its_purge_every_kind_of_data_is_found(
    folder: Path, lacking: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the search above can fail, and each entry of the list is needed."""
    without = replace(lacking, erase=lambda purge: None)
    monkeypatch.setattr(purge, "KINDS", tuple(without if kind is lacking else kind for kind in KINDS))
    cluster = Cluster(config_of(folder))
    cluster.settle()
    leave_everywhere(cluster.run, folder / "exported")
    receipt = deletion.accept(cluster.run, ["r3"], [])
    try:
        purge_alone(cluster)
    except LedgerError:  # stages and rows: it refuses to say that they are purged
        assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.PRUNED
    found = {*holds(folder / "run", MARKER.encode()), *holds(folder / "exported", MARKER.encode())}
    root = folder / ("exported" if lacking.root is None else "run")
    assert found and found == {*holds(root, MARKER.encode())}
    if lacking.root is not None:
        assert {path.split("/")[0] for path in found} == {lacking.root}


@pytest.mark.parametrize("strange", ["master.key", "../run.keys/adapter_config.json"])
def test_a_row_of_the_ledger_has_no_other_file_erased_than_an_export_has(folder: Path, strange: str) -> None:
    """Else whoever can write the ledger could have any file of this user erased, the run's keys among them."""
    cluster = Cluster(config_of(folder))
    cluster.settle()
    (mine := folder / "mine").mkdir()
    file = mine / strange
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"not the run's")
    stale = cluster.run.ledger.stages(0)[:1]
    cluster.run.ledger.exports.note(0, ExportedFolder(str(mine), (stale[0].id,), (strange,)))
    with pytest.raises(StoreError, match="which no export has"):
        purge_exports(cluster.run, stale)
    assert file.exists()


def test_an_owner_that_has_just_started_purges_exports_too(folder: Path) -> None:
    """Its process has asked for no key before, and the log is told of every export that is erased."""
    cluster = Cluster(config_of(folder))
    cluster.settle()
    stages = cluster.run.ledger.stages()
    (out := folder / "mine").mkdir()
    (out / ADAPTER_FILE).write_bytes(b"weights")
    cluster.run.ledger.exports.note(0, ExportedFolder(str(out), tuple(row.id for row in stages), (ADAPTER_FILE,)))
    receipt = deletion.accept(cluster.run, ["r0"], [])
    shards = {hit.shard for hit in cluster.run.ledger.deletion(receipt.request_id).receipt.hits}
    with Run.open(cluster.run.location.storage_uri) as run:
        epoch = run.ledger.take_lease("owner")
        for shard in shards:
            purge_shard(run, epoch, shard)
        assert run.ledger.exports.all() == () and not (out / ADAPTER_FILE).exists()
        assert [row.kind for row in run.ledger.log()].count("export") == 2


def test_data_of_a_kind_that_is_not_on_the_list_is_named(folder: Path) -> None:
    cluster = Cluster(config_of(folder))
    cluster.settle()
    out = folder / "run" / "out"
    cluster.run.ledger.exports.note(0, ExportedFolder(str(out), ("a" * 64,), ("adapter_model.safetensors",)))
    cluster.run.store.write_bytes("out/adapter_model.safetensors", b"an export into the run's own folder")
    assert verify(cluster.run).problems == ()
    cluster.run.store.write_bytes("embeddings/0/r3.npy", b"derived")
    (problem,) = verify(cluster.run).problems
    assert problem.startswith("embeddings/0/r3.npy is not a kind of file that this run writes")


def where_it_lies(run: Run, record_id: str) -> tuple[str, str]:
    """SHA-256 of the slice file that has the record, and its content."""
    for state in run.ledger.slices():
        for row in read_slice(Path(run.location.storage_uri, str(state.file))):
            if row.id == record_id:
                return str(state.file_sha256), row.content
    raise AssertionError(record_id)


def set_aside(folder: Path) -> list[object]:
    """Ids of the rows set aside that are left."""
    lines = (folder / "run" / "rejects" / "rejects.jsonl").read_text().splitlines()
    return [json.loads(line)["row"]["id"] for line in lines]


@pytest.mark.parametrize("read", ["slices", "rejects"])
def test_the_search_finds_the_marker_in_a_compressed_file(folder: Path, read: str) -> None:
    cluster = Cluster(config_of(folder))
    assert any(path.startswith(read) for path in holds(folder / "run", MARKER.encode()))
    assert cluster.run.row.shards == 2


def test_rows_that_never_became_records_can_be_deleted_by_name(folder: Path) -> None:
    cluster = Cluster(config_of(folder))
    cluster.settle()
    run = cluster.run
    before = set_aside(folder)
    impact = deletion.preview(run, ["r1", "x2", "nobody"], ["only here"])
    assert (impact.set_aside, impact.unknown_ids, impact.unknown_subjects) == (2, ("nobody",), ())
    assert set_aside(folder) == before
    receipt = deletion.accept(run, ["r1", "x2", "nobody"], ["only here"])
    assert (receipt.set_aside, receipt.unknown_ids, receipt.unknown_subjects) == (2, ("nobody",), ())
    assert {"x2", "x3"}.isdisjoint(map(str, set_aside(folder)))
    assert deletion.accept(run, ["r1", "x2", "nobody"], ["only here"]).repeated


def test_rows_of_nobody_that_the_run_knows_are_erased_all_the_same(folder: Path) -> None:
    cluster = Cluster(config_of(folder))
    with pytest.raises(UnknownRecords, match="1 of their rows, set aside as malformed, were erased"):
        deletion.accept(cluster.run, ["x2"], [])
    with pytest.raises(UnknownRecords) as refused:
        deletion.accept(cluster.run, ["x2"], [])
    assert "erased" not in refused.value.problem
    assert cluster.run.ledger.deletions() == ()


@pytest.mark.parametrize("killed", [True, False])
def test_an_export_that_a_deletion_overtakes_keeps_no_weights(
    folder: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is about to write the model, when a deletion strikes and is purged to the end; then it may be killed."""
    cluster = Cluster(config_of(folder))
    cluster.settle()
    out = folder / "exported"
    shard = deletion.preview(cluster.run, ["r3"], []).shards[0].shard

    class Killed(BaseException):
        """The end of the process, before it looks at what it exported."""

    def slow(store: object, stages: object, target: Path, isolation: object) -> None:
        deletion.accept(cluster.run, ["r3"], [])
        cluster.settle()
        target.mkdir()
        (target / "adapter_model.safetensors").write_bytes(b"weights")
        if killed:
            raise Killed

    monkeypatch.setattr("s3t_ray.train.adapters.export_adapter", slow)
    with pytest.raises(Killed if killed else ConfigError):
        export(cluster.run, shard, out)
    assert (out / "adapter_model.safetensors").exists() == killed
    assert any("holds weights of" in problem for problem in audit(cluster.run).problems) == killed
    again = Cluster(config_of(folder))
    assert list(out.iterdir()) == [] and audit(again.run).problems == ()
