"""Collects the facts for a run's report: the ledger, its history, the manifests of live stages, the log's proofs.

In: an open run. Out: frozen facts. Changes nothing, and contains no ids of records or people. Damage and failed checks
become text, so that a run with problems can still be reported on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from s3t_ray.errors import StageDamaged, VerificationFailed
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.ledger.values import DeletionRow, DeletionState, Event, EventKind, StageRow, StageState, StoredEntry
from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.proof.signed_entry import LogKeys
from s3t_ray.run.log.issued_certificates import log_keys
from s3t_ray.run.reports import Status
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.scheduler.scheduler import DEPTHS
from s3t_ray.store import layout
from s3t_ray.store.manifest import Manifest
from s3t_ray.store.published_stage import read_manifest

HISTORY = (DEPTHS, EventKind.DELETION_ACCEPTED, EventKind.DELETION_RESTORED)


@dataclass(frozen=True)
class CertificateFound:
    """The newest certificate of one deletion."""

    kind: str
    """`final`, `interim`, or `none`."""
    sequence: int | None
    """Its position in the log."""
    check: str
    """"holds", or what is wrong with it."""


@dataclass(frozen=True)
class DeletionFound:
    """A deletion, its certificate, and the stages that were retrained after it."""

    row: DeletionRow
    certificate: CertificateFound
    retrained: tuple[str, ...]
    """The live stages of the affected shards that were accepted between receipt and certificate. Stages that a later
    deletion pruned are not included."""


@dataclass(frozen=True)
class StageFound:
    """A stage's ledger row and its manifest."""

    row: StageRow
    manifest: Manifest | None
    """None: it is damaged."""


@dataclass(frozen=True)
class ReportedRun:
    """What the report shows about a run."""

    made_at: str
    status: Status
    run_id: str
    recipe_digest: str
    base_digest: str
    key_fingerprint: str
    log_entries: int
    task: str
    base: str
    history: tuple[Event, ...]
    stages: tuple[StageFound, ...]
    """The live stages."""
    stages_accepted: int
    """All stages accepted since the run was created."""
    deletions: tuple[DeletionFound, ...]
    stored_bytes: dict[str, int]
    """Bytes in the storage, by kind of file."""
    problems: tuple[str, ...]


def read_facts(run: Run) -> ReportedRun:
    """Read all facts. Raises LedgerError if the run's data was never ingested."""
    row, ledger = run.row, run.ledger
    found, problems = _live_stages(run)
    log = ledger.log()
    keys: bytes | LogKeys = run.keys.public_key_pem
    try:
        keys = log_keys(run, run.keys.public_key_pem)
    except VerificationFailed as error:  # the log has a forged change of key: check everything with the newest key
        problems = (*problems, error.problem)
    certificates = _certificates(log, keys)
    return ReportedRun(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        status=status(run),
        run_id=ledger.run_id,
        recipe_digest=row.recipe_digest,
        base_digest=row.base_digest,
        key_fingerprint=run.keys.fingerprint,
        log_entries=len(log),
        task=run.config.task.kind,
        base=run.config.model.path,
        history=ledger.events(kinds=HISTORY),
        stages=found,
        stages_accepted=len(ledger.events(kinds=(EventKind.STAGE_ACCEPTED,))),
        deletions=tuple(_deletion(each, found, certificates) for each in ledger.deletions()),
        stored_bytes=_stored_bytes(run),
        problems=problems,
    )


def _live_stages(run: Run) -> tuple[tuple[StageFound, ...], tuple[str, ...]]:
    found, problems = [], []
    for row in run.ledger.stages(state=StageState.LIVE):
        try:
            found.append(StageFound(row, read_manifest(run.store, row.id)))
        except StageDamaged as error:
            problems.append(error.problem)
            found.append(StageFound(row, None))
    return tuple(found), tuple(problems)


def _deletion(
    row: DeletionRow, stages: tuple[StageFound, ...], certificates: dict[str, CertificateFound]
) -> DeletionFound:
    shards = {hit.shard for hit in row.receipt.hits}
    end = row.times.restored
    retrained = tuple(
        stage.row.id
        for stage in stages
        if end is not None and stage.row.shard in shards and row.times.accepted < stage.row.accepted_at <= end
    )
    due = row.state in (DeletionState.PURGED, DeletionState.RESTORED)
    missing = CertificateFound("none", None, "missing from the log" if due else "not due yet")
    return DeletionFound(row, certificates.get(row.receipt.request_id, missing), retrained)


def _certificates(log: tuple[StoredEntry, ...], keys: bytes | LogKeys) -> dict[str, CertificateFound]:
    """The newest certificate of each request, checked with the run's keys, including those before a change of key."""
    found = {}
    for entry in log:  # oldest first: the final certificate replaces the interim one
        if entry.request_id is None or EntryKind(entry.kind) not in _KINDS:
            continue
        kind = _KINDS[EntryKind(entry.kind)]
        try:
            of = verify_certificate(entry.text, keys).facts.request_id
            check = "holds" if of == entry.request_id else f"it is of another deletion, {of}"
        except VerificationFailed as error:
            check = error.problem
        found[entry.request_id] = CertificateFound(kind, entry.sequence, check)
    return found


_KINDS = {EntryKind.CERTIFICATE: "final", EntryKind.INTERIM: "interim"}


def _stored_bytes(run: Run) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in run.store.files():
        kind = layout.kind_root(path)
        sizes[kind] = sizes.get(kind, 0) + run.store.size(path)
    return sizes
