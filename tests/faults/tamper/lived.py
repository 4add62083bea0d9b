"""One run that has lived, at three moments: what every tampering starts from, each in a copy of its own."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.values import ExportedFolder
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.integrity.seal_keys import slice_key
from s3t_ray.run.reports import DeletionReceipt
from s3t_ray.run.run import Run
from s3t_ray.store.seal import seal
from s3t_ray.train.hidden_states.hidden_manifest import HiddenManifest
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.same_keys import same_keys

PEOPLE = [(f"r{number}", f"p{number % 5}") for number in range(18)]
MOMENTS = ("idle", "receipt", "certified")


@dataclass(frozen=True)
class Moment:
    """A run as it stood, and what had been handed out by then."""

    folder: Path  # with `run` and `run.keys`
    certificates: tuple[str, ...]
    receipts: tuple[str, ...]
    public_key: bytes


def live(folder: Path) -> dict[str, Moment]:
    """Train a run and restore a deletion (idle), accept a second one (receipt), and restore it (certified)."""
    same_keys(folder / "run.keys")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", PEOPLE)
    cluster = Cluster(small_config(folder, budget=1))
    run = cluster.run
    cluster.settle()
    shutil.copytree(folder / "run", folder / "first")
    with Run.create(small_config(folder, budget=1, log={"timestamp_seconds": 7200})) as changed:
        ingest(changed, lambda line: None)
    told = run.ledger.callbacks.begin("office")
    receipts = [deletion.accept(run, ["r3"], [], details=_told(1))]
    run.ledger.callbacks.failed("office", told.position, "no answer")
    cluster.settle()
    _store_hidden(run)
    (folder / "out").mkdir()
    (folder / "out" / "adapter_config.json").write_bytes(b"weights")
    name = run.ledger.stages()[-1].id
    run.ledger.exports.note(0, ExportedFolder(str(folder / "out"), (name,), ("adapter_config.json",)))
    run.ledger.followers.begin("vllm")
    moments = {"idle": _snapshot(run, folder, "idle", receipts)}
    run.ledger.followers.end("vllm")  # nobody here would confirm for it
    receipts.append(deletion.accept(run, ["r7", "r3"], [], details=_told(2)))  # r3 is deleted already
    moments["receipt"] = _snapshot(run, folder, "receipt", receipts)
    cluster.settle()
    _store_hidden(run)
    moments["certified"] = _snapshot(run, folder, "certified", receipts)
    run.close()
    return moments


def _told(number: int) -> RequestDetails:
    """What an office says of its request."""
    return RequestDetails(f"case-{number}", "Ann's lawyer", "withdrawn consent", "2027-01-01T00:00:00.000000+00:00")


def fork(moment: Moment, target: Path) -> Path:
    """A copy of the run and its keys to tamper with; its storage."""
    for name in ("run", "run.keys"):
        shutil.copytree(moment.folder / name, target / name)
    return target / "run"


def _snapshot(run: Run, folder: Path, name: str, receipts: list[DeletionReceipt]) -> Moment:
    run.ledger._database.forget_overwritten()  # so that the copy needs no log
    for part in ("run", "run.keys"):
        shutil.copytree(folder / part, folder / name / part)
    entries = tuple(row.text for row in run.ledger.log() if row.kind == "certificate")
    handed = tuple(receipt.proof.to_json() for receipt in receipts if receipt.proof)
    return Moment(folder / name, entries, handed, run.keys.public_key_pem)


def _store_hidden(run: Run) -> None:
    """Hidden states of one slice, as a worker seals them."""
    state = next(s for s in run.ledger.slices(0) if s.records)
    folder = f"hidden/{run.row.base_digest[:16]}/0/{state.slice}/{state.digest}/layer-2"
    header = b'{"hidden":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
    rows = bytes(range(8))
    run.store.write_bytes(f"{folder}/part-0.safetensors", len(header).to_bytes(8, "little") + header + rows)
    manifest = HiddenManifest(
        recipe_digest=run.row.recipe_digest,
        base_digest=run.row.base_digest,
        slice_sha256=str(state.file_sha256),
        boundary=2,
        lengths=(1,),
        digests=(hashlib.sha256(rows).hexdigest()[:32],),
        parts=1,
    )
    sealed = seal(manifest, slice_key(run, 0, state.slice, state.digest))
    run.store.write_bytes(f"{folder}/manifest.json", sealed.model_dump_json().encode())
