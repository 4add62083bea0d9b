"""The ledger's value types and states, for its inputs and outputs.

Frozen, hashable and picklable; no SQL, no clock. Ids and subjects are 32-byte keyed HMACs (see `keys.py`), digests of
data are 64 hex digits, and times are UTC ISO 8601 strings with microseconds. Times never go back, but are only for
people; sequence numbers define the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from s3t_ray.errors import DataError, LedgerError
from s3t_ray.plan.stages import Stage
from s3t_ray.proof.receipt import SignedReceipt


class DeletionState(StrEnum):
    """State of a deletion. It only moves forward, one step at a time."""

    ACCEPTED = "accepted"  # -> durable: tombstones written, dependent stages no longer live
    PRUNED = "pruned"  # accepted -> no serving replica answers from a stale stage
    PURGED = "purged"  # pruned -> the bytes of the records and all derived data are gone
    RESTORED = "restored"  # purged -> re-queued stages are live again; the certificate is written

    @property
    def rank(self) -> int:
        """Position in the sequence: 0 accepted .. 3 restored."""
        return tuple(DeletionState).index(self)


class StageState(StrEnum):
    """State of a published stage."""

    LIVE = "live"  # -> accepted: serves, and can be a parent
    STALE = "stale"  # live -> one of its slices changed, or it is not wanted; bytes still exist
    PURGED = "purged"  # stale -> bytes erased


class EventKind(StrEnum):
    """Events that the ledger itself writes, in the transaction that they describe."""

    INGESTED = "ingested"
    LEASE_TAKEN = "lease_taken"
    STAGE_ACCEPTED = "stage_accepted"
    STAGE_STALE = "stage_stale"
    STAGE_PURGED = "stage_purged"
    STAGE_FAILED = "stage_failed"
    SLICE_REWRITTEN = "slice_rewritten"
    DELETION_ACCEPTED = "deletion_accepted"
    DELETION_PRUNED = "deletion_pruned"
    DELETION_PURGED = "deletion_purged"
    DELETION_RESTORED = "deletion_restored"
    EXPORTED = "exported"
    EXPORT_ERASED = "export_erased"


class Reach(StrEnum):
    """What a deletion includes beyond the named records."""

    NAMED = "named"  # only the named records
    DUPLICATES = "duplicates"  # also every record with the same content
    NEAR_DUPLICATES = "near_duplicates"  # also records with nearly the same content


@dataclass(frozen=True, slots=True)
class DuplicateSearch:
    """What a deletion includes, and the minimum Jaccard similarity (0..1) of a near-duplicate."""

    reach: Reach = Reach.NAMED
    threshold: float = 1.0


NAMED_ALONE = DuplicateSearch()


@dataclass(frozen=True, slots=True)
class Sketching:
    """How the run's records are sketched; fixed at ingest."""

    permutations: int  # bytes of a signature
    shingle_words: int
    bands: int  # per record; two records match if they agree in all `rows` of a band
    rows: int


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """One record at ingest. Held-out records have shard -1, slice 0."""

    id_hmac: bytes
    subject_hmac: bytes | None
    content_hmac: bytes
    digest: bytes  # keyed digest of id and content, 32 bytes; slice digests are computed from it
    shard: int
    slice: int
    signature: bytes | None = None  # keyed MinHash of the content, one byte per permutation; None: not sketched


@dataclass(frozen=True, slots=True)
class RecordState:
    """The ledger's state of one record. The digest is erased when its deletion is purged."""

    digest: bytes | None
    shard: int
    slice: int
    deleted: bool
    content_hmac: bytes | None = None  # erased with the digest


@dataclass(frozen=True, slots=True)
class RunRow:
    """The run of a ledger. Written once, by `Ledger.ingest`."""

    name: str
    recipe_digest: str
    recipe_json: str
    base_digest: str
    shards: int
    slices: int  # per shard
    key_check: str  # `Keys.key_check`: identifies the right keys


@dataclass(frozen=True, slots=True)
class SliceState:
    """The current state of one slice. Its file may still contain tombstoned rows: see `file_digest`."""

    shard: int
    slice: int
    records: int  # retained
    digest: str  # of the retained records
    file: str | None  # store path of the rows; None: none recorded yet
    file_sha256: str | None
    file_digest: str | None  # slice digest of the rows in the file; equals `digest` if the file is clean


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage that the ledger has accepted at some time."""

    id: str
    shard: int
    slices: tuple[int, ...]
    ancestors: tuple[str, ...]
    state: StageState
    adapter_sha256: str
    accepted_at: str
    pruned_by: str | None  # request id of the deletion that made it stale; None: live, or no longer wanted
    number: int = 0  # sequence number of its acceptance

    @property
    def depth(self) -> int:
        return len(self.slices)


@dataclass(frozen=True, slots=True)
class Hit:
    """Records of one slice that one deletion removed."""

    shard: int
    slice: int
    records: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a deletion is durable. It never changes."""

    request_id: str
    accepted_at: str
    records: int  # newly deleted by this request
    already_deleted: int  # named in it, but deleted earlier
    unknown: int  # ids and subjects that the run does not have
    hits: tuple[Hit, ...]
    stages: tuple[str, ...]  # ids of the stages that stopped being live


@dataclass(frozen=True, slots=True)
class Twins:
    """Retained records that are similar to named ones but not named themselves."""

    records: int
    subjects: tuple[tuple[bytes | None, int], ...]  # (subject HMAC, records), largest first; None: no subject


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deletion would do now; nothing is changed."""

    hits: tuple[Hit, ...]
    records: int
    already_deleted: int
    unknown_ids: tuple[bytes, ...]
    unknown_subjects: tuple[bytes, ...]
    stages: tuple[str, ...]
    taken_along: int  # of `records`: not named, but similar to a named one
    duplicates: Twins  # that would stay
    near_duplicates: Twins | None  # that would stay, without exact ones; None: the run has no sketches
    forgotten: int  # named records whose content was erased earlier, so nothing can be compared with them


@dataclass(frozen=True, slots=True)
class Similar:
    """Retained records that are similar to the named ones: the fields of `Preview` of the same names."""

    duplicates: Twins
    near_duplicates: Twins | None
    forgotten: int


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Answer to a deletion: its receipt, unknown names, and whether it was a repeat."""

    receipt: Receipt
    unknown_ids: tuple[bytes, ...]
    unknown_subjects: tuple[bytes, ...]
    repeated: bool
    taken_along: int  # of the receipt's records: not named, but similar to a named one; 0 for a repeat
    signed: SignedReceipt | None  # its entry in the log; None: a version that signed no receipts accepted it
    named: Mapping[bytes, bytes | None] = field(repr=False)  # id HMAC -> content HMAC, of the named records found


@dataclass(frozen=True, slots=True)
class DeletionTimes:
    """When each state was reached (UTC ISO 8601); None: not yet."""

    accepted: str
    pruned: str | None
    purged: str | None
    restored: str | None


@dataclass(frozen=True, slots=True)
class DeletionRow:
    """A deletion and its state."""

    receipt: Receipt
    state: DeletionState
    times: DeletionTimes
    waits_for: tuple[str, ...]
    """Earlier requests that deleted records which this one also names and are not further: they advance first."""
    number: int = 0
    """Its sequence number in the ledger."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the run's history, without personal data. `seq` defines the order; `at` is for people."""

    seq: int
    at: str
    kind: str
    shard: int | None
    detail: str  # canonical JSON object


@dataclass(frozen=True, slots=True)
class Published:
    """A stage that a worker group has published and that is to be accepted."""

    stage: Stage
    adapter_sha256: str
    slice_digests: Mapping[int, str]  # by slice, the digest that it was trained on


@dataclass(frozen=True, slots=True)
class RunningStage:
    """A stage in training. Informational only; the same value is used from worker group to report."""

    stage_id: str
    shard: int
    slices: tuple[int, ...]
    group: int
    step: int
    steps: int  # 0: still loading its inputs
    loss: float | None
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class NotedStage:
    """A stage in training, as the scheduler last recorded it."""

    stage: RunningStage
    at: str  # UTC


@dataclass(frozen=True, slots=True)
class ExportedFolder:
    """A folder that the run wrote outside its storage, the stages whose weights are in it, and its files."""

    folder: str
    stages: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An unchecked entry of the log, as stored in its row."""

    sequence: int
    kind: str
    hash: str
    request_id: str | None  # of the deletion in its row; None: none, or no such deletion
    text: str


class SchedulerLease(NamedTuple):
    """The current scheduler. Epoch 0: no scheduler yet. `beats` increases while the holder is alive."""

    epoch: int
    holder: str
    beats: int


class DuplicateRecord(DataError):
    """Records with the same id in one ingest; `id_hmac` is the first such id, for the caller to name."""

    def __init__(self, id_hmac: bytes, problem: str, fix: str) -> None:
        self.id_hmac = id_hmac
        super().__init__(problem, fix)

    def __reduce__(self) -> tuple[type, tuple[bytes, str, str]]:  # type: ignore[override]
        return type(self), (self.id_hmac, self.problem, self.fix)


class NoLedger(LedgerError):
    """There is no ledger where the URL says, or another's tables."""


class NoSuchDeletion(LedgerError):
    """The ledger has no deletion with this request id."""


class Fenced(LedgerError):
    """A newer scheduler has taken the lease: the writer must stop."""
