"""The ledger's value types and states: what goes into it and what comes out.

Frozen, hashable, picklable; no SQL, no clock. Ids and subjects appear only as 32-byte keyed HMACs
(see `keys.py`), digests of data as 64 hex digits, times as UTC ISO 8601 strings with microseconds.
Times are for people and never run backwards; sequence numbers order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from s3t_ray.errors import DataError, LedgerError
from s3t_ray.plan.stages import Stage
from s3t_ray.proof.receipt import SignedReceipt


class DeletionState(StrEnum):
    """Where a deletion stands. It only moves forward, one step at a time."""

    ACCEPTED = "accepted"  # -> durable: tombstones set, dependent stages no longer live
    PRUNED = "pruned"  # accepted -> no serving replica answers from a stale stage
    PURGED = "purged"  # pruned -> the bytes of the records and of all derived from them are gone
    RESTORED = "restored"  # purged -> re-queued stages are live again; the certificate is written

    @property
    def rank(self) -> int:
        """Position on the way: 0 accepted .. 3 restored."""
        return tuple(DeletionState).index(self)


class StageState(StrEnum):
    """Where a published stage stands."""

    LIVE = "live"  # -> accepted: serves, and is the parent of others
    STALE = "stale"  # live -> a slice of it changed, or it is no longer wanted; bytes still there
    PURGED = "purged"  # stale -> bytes erased


class EventKind(StrEnum):
    """Events that the ledger itself writes, in the transaction they tell of."""

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
    """How far a deletion goes beyond the records that it names."""

    NAMED = "named"  # they alone
    DUPLICATES = "duplicates"  # and every record of the same content
    NEAR_DUPLICATES = "near_duplicates"  # and those whose content is nearly the same


@dataclass(frozen=True, slots=True)
class DuplicateSearch:
    """What a deletion takes along, and from what likeness on (Jaccard, 0..1) a record is a near-duplicate."""

    reach: Reach = Reach.NAMED
    threshold: float = 1.0


NAMED_ALONE = DuplicateSearch()


@dataclass(frozen=True, slots=True)
class Sketching:
    """How the run's records were sketched: fixed when they are read in."""

    permutations: int  # bytes of a signature
    shingle_words: int
    bands: int  # a record; two records meet when they agree in all `rows` of one
    rows: int


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """One record at ingest. Held-out records have shard -1, slice 0."""

    id_hmac: bytes
    subject_hmac: bytes | None
    content_hmac: bytes
    digest: bytes  # keyed digest of id and content, 32 bytes: what slice digests are made of
    shard: int
    slice: int
    signature: bytes | None = None  # keyed MinHash of the content, a byte a permutation; None: not sketched


@dataclass(frozen=True, slots=True)
class RecordState:
    """What the ledger says of one record. The digest is erased when its deletion is purged."""

    digest: bytes | None
    shard: int
    slice: int
    deleted: bool
    content_hmac: bytes | None = None  # erased with the digest


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a ledger belongs to. Written once, by `Ledger.ingest`."""

    name: str
    recipe_digest: str
    recipe_json: str
    base_digest: str
    shards: int
    slices: int  # a shard
    key_check: str  # `Keys.key_check`: tells a wrong key from the right one


@dataclass(frozen=True, slots=True)
class SliceState:
    """One slice of data now. The file may still hold rows that are tombstoned: see `file_digest`."""

    shard: int
    slice: int
    records: int  # retained
    digest: str  # of the retained records
    file: str | None  # store path of the rows; None: none recorded yet
    file_sha256: str | None
    file_digest: str | None  # slice digest of the rows in the file; equal to `digest` when it is clean


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage the ledger has accepted at some time."""

    id: str
    shard: int
    slices: tuple[int, ...]
    ancestors: tuple[str, ...]
    state: StageState
    adapter_sha256: str
    accepted_at: str
    pruned_by: str | None  # request id of the deletion that made it stale; None: live, or no longer wanted
    number: int = 0  # of its acceptance in the ledger's count

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
    """Proof that a deletion is durable. It never changes once given."""

    request_id: str
    accepted_at: str
    records: int  # newly deleted by this request
    already_deleted: int  # named by it, deleted by an earlier one
    unknown: int  # ids and subjects that the run does not hold
    hits: tuple[Hit, ...]
    stages: tuple[str, ...]  # ids of the stages that stopped being live


@dataclass(frozen=True, slots=True)
class Twins:
    """Retained records that are like some that a deletion names, and that it does not name."""

    records: int
    subjects: tuple[tuple[bytes | None, int], ...]  # (subject HMAC, records), most first; None: of nobody


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deletion would do now. Nothing was changed."""

    hits: tuple[Hit, ...]
    records: int
    already_deleted: int
    unknown_ids: tuple[bytes, ...]
    unknown_subjects: tuple[bytes, ...]
    stages: tuple[str, ...]
    taken_along: int  # of `records`: not named, but like one that is
    duplicates: Twins  # that would stay
    near_duplicates: Twins | None  # that would stay, without the exact ones; None: the run has no sketches
    forgotten: int  # records named whose content was erased before: nothing can be compared with them


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Answer to a deletion: its receipt, what the run does not hold, and whether it was a repeat."""

    receipt: Receipt
    unknown_ids: tuple[bytes, ...]
    unknown_subjects: tuple[bytes, ...]
    repeated: bool
    taken_along: int  # of the receipt's records: not named, but like one that is; 0 when repeated
    signed: SignedReceipt | None  # its entry in the log; None: a version that signed none had accepted it


@dataclass(frozen=True, slots=True)
class DeletionTimes:
    """When each state was reached (UTC ISO 8601); None: not yet."""

    accepted: str
    pruned: str | None
    purged: str | None
    restored: str | None


@dataclass(frozen=True, slots=True)
class DeletionRow:
    """A deletion and where it stands."""

    receipt: Receipt
    state: DeletionState
    times: DeletionTimes
    waits_for: tuple[str, ...]
    """Earlier requests that deleted records this one names too, and are no further: they move first."""
    number: int = 0
    """Its place in the ledger's count."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the run's history, without personal data. `seq` orders; `at` is for people."""

    seq: int
    at: str
    kind: str
    shard: int | None
    detail: str  # canonical JSON object


@dataclass(frozen=True, slots=True)
class Published:
    """A stage that a worker group has published, to be accepted."""

    stage: Stage
    adapter_sha256: str
    slice_digests: Mapping[int, str]  # by slice, what it was trained on


@dataclass(frozen=True, slots=True)
class RunningStage:
    """A stage in training: for people to look at, no truth rests on it. The one value, from worker group to report."""

    stage_id: str
    shard: int
    slices: tuple[int, ...]
    group: int
    step: int
    steps: int  # 0: it loads its inputs
    loss: float | None
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class NotedStage:
    """A stage in training, as the scheduler last noted it."""

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
    """An entry of the log as its row has it, unchecked."""

    sequence: int
    kind: str
    hash: str
    request_id: str | None  # of the deletion that its row names; None: of none, or there is no such deletion
    text: str


class SchedulerLease(NamedTuple):
    """Who schedules. epoch 0: no scheduler yet. `beats` counts up while the holder is alive."""

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
    """The ledger has no deletion of this request id."""


class Fenced(LedgerError):
    """A newer scheduler has taken the lease: the writer must stop."""
