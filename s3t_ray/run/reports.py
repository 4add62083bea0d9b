"""Reports of the runtime: frozen values that the command line prints or dumps as JSON.

They contain no personal data: record ids appear only if the caller gave them in the same call.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from s3t_ray.ledger.values import RunningStage
from s3t_ray.proof.receipt import HandedReceipt


class Report(BaseModel):
    """Base of all reports: frozen and strict; `model_dump_json()` is the `--json` output."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ShardStatus(Report):
    shard: int
    records: int
    orders: tuple[tuple[int, ...], ...]
    depths: tuple[int, ...]
    """Live depth of each sequence, in the order of `orders`."""
    wanted: int
    """Stages that the retained data and the config require."""
    trained: int
    running: int
    queued: int
    failed: int

    @property
    def depth(self) -> int:
        """Depth that the shard serves: that of its deepest sequence; 0: dead."""
        return max(self.depths, default=0)


class Failure(Report):
    """Something that failed and has not succeeded since."""

    kind: Literal["stage", "purge", "serving", "log", "callback", "follower"]
    """The training of a stage, the purge of a shard, the loading of a live set by the serving replicas, the publishing
    of the log, a message to a receiver of callbacks, or a server outside that has not confirmed."""
    stage_id: str | None = None
    """Of a stage."""
    shard: int | None = None
    """Of a purge; -1: the shard of the held-out records."""
    error: str
    """Of the last attempt."""
    attempts: int

    @property
    def title(self) -> str:
        """A description of what failed."""
        match self.kind:
            case "stage":
                return f"stage {(self.stage_id or '')[:12]}"
            case "purge":
                return "purge of the held-out records" if self.shard == -1 else f"purge of shard {self.shard}"
            case "serving" | "callback" | "follower":
                return self.kind
            case "log":
                return "the published log"


class HeadReport(Report):
    """`s3t head`: the state of the published log."""

    origin: str
    """Name of the log."""
    size: int
    """Entries."""
    checkpoint: str
    """The signed note, with its cosignatures; empty if the log is not published yet."""
    key: str
    """Verifier key of the log, `name+id+key`."""


class DeletionStatus(Report):
    request_id: str
    state: Literal["accepted", "pruned", "purged", "restored"]
    records: int
    hits: tuple[tuple[int, int, int], ...]
    """Affected (shard, slice, records); shard -1 holds held-out records."""
    accepted_at: str
    pruned_at: str | None = None
    purged_at: str | None = None
    restored_at: str | None = None
    age_seconds: float
    """Time since acceptance or, once restored, the total time."""
    due_at: str | None = None
    """The earliest requested due date (UTC)."""
    overdue: bool = False
    """Whether that date has passed and the records are not purged."""


class Status(Report):
    """`s3t status`: everything from the ledger; works with or without a cluster."""

    name: str
    storage: str
    records: int
    held_out: int
    slices: int
    shards: tuple[ShardStatus, ...]
    deletions: tuple[DeletionStatus, ...]
    running: tuple[RunningStage, ...] = ()
    """Stages in training now or, as seen from another process, a few seconds ago."""
    waiting: str | None = None
    """What worker groups wait for to start, as the last scheduler recorded it."""
    failures: tuple[Failure, ...] = ()
    settled: bool
    """Whether nothing is missing, stale or unfinished."""
    ids_derived: bool
    """True when ids come from record contents because the data has none or `data.id_field` is null."""
    teaching_nothing: int = 0
    """Ingested training records without a response within task.max_tokens."""
    smallest_slice: int = 0
    """In records, like the next two."""
    largest_slice: int = 0
    empty_slices: int = 0
    """Number of slices without records."""


class ShardImpact(Report):
    shard: int
    slices: tuple[int, ...]
    records: int
    stages: int
    """Live stages that would be pruned."""
    depths_before: tuple[int, ...]
    depths_after: tuple[int, ...]
    retrain_stages: int
    retrain_records: int
    """Records times stages to retrain, for one epoch."""


class DuplicatesOf(Report):
    subject: str | None
    """First digits of the subject's HMAC; None for records without a subject."""
    records: int


class Duplicates(Report):
    records: int
    subjects: tuple[DuplicatesOf, ...]
    """Subjects with the most records first."""


class Likeness(Report):
    """Records similar to those named in a deletion, but not named themselves."""

    duplicates: Duplicates
    """Records with exactly the same content that the deletion keeps."""
    near_duplicates: Duplicates | None
    """The same, with nearly the same content; None: the run's records were not sketched."""
    threshold: float
    """Minimum Jaccard similarity of a near-duplicate."""
    reach: Literal["named", "duplicates", "near_duplicates"]
    """What the deletion includes: only named records, also duplicates, or also near-duplicates."""
    taken_along: int
    """Records that the deletion includes because they are similar to a named one (counted in `records`)."""
    forgotten: int
    """Named records that were purged earlier: similar records can no longer be found."""


class OtherSpelling(Report):
    """Records that remain under another spelling of a name in a deletion."""

    kind: Literal["id", "subject"]
    named: str
    """Spelling in the deletion."""
    spelling: str
    """Spelling in the run's data."""
    records: int


class Impact(Report):
    """`s3t delete --dry-run`: what a deletion would affect."""

    records: int
    held_out: int
    already_deleted: int
    unknown_ids: tuple[str, ...]
    unknown_subjects: tuple[str, ...]
    shards: tuple[ShardImpact, ...]
    set_aside: int = 0
    """Rows set aside as malformed at ingest that would be erased."""
    likeness: Likeness | None = None
    other_spellings: tuple[OtherSpelling, ...] = ()
    """Spellings that differ in case, blanks or accents; not part of the deletion."""


class DeletionReceipt(Report):
    """The result of `s3t delete` once the deletion is durable."""

    request_id: str
    accepted_at: str
    records: int
    already_deleted: int
    unknown_ids: tuple[str, ...]
    unknown_subjects: tuple[str, ...]
    stages_pruned: tuple[str, ...]
    repeated: bool
    """True if the same request was accepted before; the receipt is the original one."""
    shards: tuple[ShardImpact, ...]
    set_aside: int = 0
    """Rows set aside as malformed at ingest, which were erased immediately."""
    likeness: Likeness | None = None
    """Records with the same content that remain right after the deletion was accepted."""
    note: str | None = None
    """What went wrong after the deletion was accepted. The deletion is valid, and its purge continues."""
    proof: HandedReceipt | None = None
    """The signed receipt, an entry of the run's log, with the nonce that opens its commitment; None: an older version
    accepted the deletion."""
    other_spellings: tuple[OtherSpelling, ...] = ()
    """Records under other spellings of the names, which were not deleted."""


class TrainReport(Report):
    """`s3t train`, once the run is settled."""

    trained: int
    """Stages trained by this call."""
    reused: int
    """Stages that had been published before."""
    seconds: float
    tokens: int
    status: Status


class DepthLoss(Report):
    depth: int
    """Depth at which every shard is cut; 0 is the base model."""
    loss: float
    """Mean over labelled tokens or, for tasks with one output per record, over records: nats, or squared error."""
    standard_error: float
    metrics: dict[str, float | None] = {}
    """Of `task.metrics`, by name; empty for text. null: not defined on these records."""


class Evaluation(Report):
    """`s3t eval`."""

    records: int
    tokens: int
    by_depth: tuple[DepthLoss, ...]
    live: DepthLoss
    depths: tuple[int, ...]
    """Live depth of each shard."""


class Generation(Report):
    text: str
    depths: tuple[int, ...]
    version: int
    seconds: float


class Export(Report):
    shard: int | None
    """None: all live shards, merged."""
    depth: int
    """Layer groups of the deepest shard in it."""
    folder: str
    stages: tuple[str, ...]
    adapter_sha256: str


class Verdict(StrEnum):
    """The verdict of a replay on a stage."""

    EQUAL = "equal"
    DIFFERS = "differs"
    NOT_PROVED = "not_proved"


class ReplayedStage(Report):
    stage_id: str
    shard: int
    slices: tuple[int, ...]
    verdict: Verdict
    """`equal`: every byte; `differs`: other bytes on the same hardware and library versions, which is a failure;
    `not_proved`: other bytes on others, from which nothing follows."""
    largest_difference: float
    """Over all numbers of the adapter."""
    mismatches: tuple[str, ...]
    """Hardware and library versions that differ from those of the stage's training."""


class Verification(Report):
    """`s3t verify`."""

    records: int
    stages: int
    problems: tuple[str, ...]
    replayed: tuple[ReplayedStage, ...] = ()
    excused: tuple[str, ...] = ()
    """Deletions that are not purged yet: their remaining bytes are not a problem."""

    @property
    def differing(self) -> int:
        """Replayed stages whose bytes differ although hardware and library versions are the same."""
        return sum(stage.verdict is Verdict.DIFFERS for stage in self.replayed)

    @property
    def unproved(self) -> int:
        """Replayed stages about which nothing is proved."""
        return sum(stage.verdict is Verdict.NOT_PROVED for stage in self.replayed)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def result(self) -> Literal["verified", "not_proved", "failed"]:
        """`failed`: a problem, or a stage that differs; `not_proved`: no failure, but a replay that proves nothing."""
        if self.problems or self.differing:
            return "failed"
        return "not_proved" if self.unproved else "verified"


class AuditReport(Verification):
    """`s3t audit`."""

    certificates: int
    head: str
    """Hash of the newest certificate; zeros if there is none."""
    public_key: str
    """Fingerprint (SHA-256) of the run's public key."""


class RestoreReport(Report):
    """`s3t restore`."""

    lost_entries: int
    """Entries of the log that the backup lacked."""
    deletions: tuple[str, ...]
    """Requests that were accepted again."""


class KeysReport(Report):
    """`s3t keys`."""

    folder: str
    made: bool
    """False: these keys already existed."""
    public_key_sha256: str
