"""Reports of the runtime: frozen values that the command line prints or dumps as JSON.

Never personal data: ids of records appear only where the caller gave them in the same call.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from s3t_ray.ledger.values import RunningStage
from s3t_ray.proof.receipt import HandedReceipt


class Report(BaseModel):
    """Base of all reports: frozen, strict, `model_dump_json()` is the `--json` output."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ShardStatus(Report):
    shard: int
    records: int
    orders: tuple[tuple[int, ...], ...]
    depths: tuple[int, ...]
    """Live depth of each sequence, in the order of `orders`."""
    wanted: int
    """Stages that the retained data and the config ask for."""
    trained: int
    running: int
    queued: int
    failed: int

    @property
    def depth(self) -> int:
        """Depth that the shard serves: the deepest of its sequences; 0: dead."""
        return max(self.depths, default=0)


class Failure(Report):
    """What failed, and has not gone through since."""

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
        """What failed, in words."""
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
    """`s3t head`: how far the published log has come."""

    origin: str
    """Name of the log."""
    size: int
    """Entries."""
    checkpoint: str
    """The signed note, with its cosignatures; empty: the log was not published yet."""
    key: str
    """Verifier key of the log, `name+id+key`."""


class DeletionStatus(Report):
    request_id: str
    state: Literal["accepted", "pruned", "purged", "restored"]
    records: int
    hits: tuple[tuple[int, int, int], ...]
    """(shard, slice, records) touched; shard -1 holds held-out records."""
    accepted_at: str
    pruned_at: str | None = None
    purged_at: str | None = None
    restored_at: str | None = None
    age_seconds: float
    """Since acceptance, while it is not restored; else the time that it took."""
    due_at: str | None = None
    """The earliest requested due date (UTC)."""
    overdue: bool = False
    """That date has passed, and the records are not purged."""


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
    """In training now, or, seen from another process, a few seconds ago."""
    waiting: str | None = None
    """What worker groups that cannot start wait for, as the last scheduler noted it."""
    failures: tuple[Failure, ...] = ()
    settled: bool
    """Nothing is missing, stale or unfinished."""
    ids_derived: bool
    """True when ids come from record contents because the data has none or `data.id_field` is null."""
    teaching_nothing: int = 0
    """Training records, of those read in, without a response within task.max_tokens."""
    smallest_slice: int = 0
    """Records, as are the next two."""
    largest_slice: int = 0
    empty_slices: int = 0
    """How many slices hold no record."""


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
    """Records times stages to train again, for one epoch."""


class DuplicatesOf(Report):
    subject: str | None
    """First digits of the subject's HMAC; None: records without a subject."""
    records: int


class Duplicates(Report):
    records: int
    subjects: tuple[DuplicatesOf, ...]
    """Those with the most records first."""


class Likeness(Report):
    """Records that are like those a deletion names, and that it does not name itself."""

    duplicates: Duplicates
    """Retained ones, which the deletion leaves, of exactly the same content."""
    near_duplicates: Duplicates | None
    """The same, of nearly the same content; None: the run's records were not sketched."""
    threshold: float
    """Likeness (Jaccard) from which on a record is a near-duplicate."""
    reach: Literal["named", "duplicates", "near_duplicates"]
    """What the deletion takes: only what it names, its duplicates too, or its near-duplicates as well."""
    taken_along: int
    """Records that the deletion takes because they are like a named one (counted in `records`)."""
    forgotten: int
    """Named records that were purged earlier: similar records can no longer be found."""


class OtherSpelling(Report):
    """Records that are still there under another spelling of a name in a deletion."""

    kind: Literal["id", "subject"]
    named: str
    """As the deletion names it."""
    spelling: str
    """As the run's data spells it."""
    records: int


class Impact(Report):
    """`s3t delete --dry-run`: what a deletion would hit."""

    records: int
    held_out: int
    already_deleted: int
    unknown_ids: tuple[str, ...]
    unknown_subjects: tuple[str, ...]
    shards: tuple[ShardImpact, ...]
    set_aside: int = 0
    """Rows that ingest had set aside as malformed, and that would be erased."""
    likeness: Likeness | None = None
    other_spellings: tuple[OtherSpelling, ...] = ()
    """Looked for among case, blanks and accents; not part of the deletion."""


class DeletionReceipt(Report):
    """What `s3t delete` gives back once the deletion is durable."""

    request_id: str
    accepted_at: str
    records: int
    already_deleted: int
    unknown_ids: tuple[str, ...]
    unknown_subjects: tuple[str, ...]
    stages_pruned: tuple[str, ...]
    repeated: bool
    """True when this very request had been accepted before: the receipt is the first one."""
    shards: tuple[ShardImpact, ...]
    set_aside: int = 0
    """Rows that ingest had set aside as malformed, erased at once."""
    likeness: Likeness | None = None
    """Right after the deletion was accepted: what of the same content is still there."""
    note: str | None = None
    """What went wrong after the deletion was accepted. The deletion is valid, and its purge continues."""
    proof: HandedReceipt | None = None
    """The signed receipt, an entry of the run's log, with the nonce that shows whose it is; None: accepted by an
    older version."""
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
    """Every shard cut at this depth; 0 is the base model."""
    loss: float
    """Mean over labelled tokens, or over records judged as a whole: nats, or squared error."""
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
    """What a replay says of a stage."""

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
    """Hardware and library versions that are not those of the stage's training."""


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
        """Replayed stages of which nothing is proved."""
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
    """Hash of the newest certificate; zeros: there is none."""
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
    """False: keys were there already, and are these."""
    public_key_sha256: str
