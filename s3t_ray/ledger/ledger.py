"""The ledger: the only durable state of a run, as one object that any process may open.

In: HMACs, digests and stages (never an id, a content or a weight). Out: the frozen values of `values.py`. Each method
is one transaction: once it returns, its effect survives a crash of the process and of the machine; if it raises, it has
no effect. Any process may accept a deletion at any time. What a scheduler writes carries its epoch, and is refused once
a newer scheduler has taken the lease. It must never decide what to train or erase, and never contain personal data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType

from s3t_ray.ledger import deletion_progress, deletions, lease, minhash_index, resolve
from s3t_ray.ledger.consistency import contradictions
from s3t_ray.ledger.database import Database
from s3t_ray.ledger.ledger_log import LedgerLog
from s3t_ray.ledger.rows import failure_rows, record_rows, running_rows, slice_rows, stage_rows
from s3t_ray.ledger.rows.callback_rows import CallbackPositions
from s3t_ray.ledger.rows.export_rows import Exports
from s3t_ray.ledger.rows.failure_rows import FailureRow, FailureSubject
from s3t_ray.ledger.rows.follower_rows import Followers
from s3t_ray.ledger.rows.request_rows import DeletionRequests, RequestDetails
from s3t_ray.ledger.transaction import read_events, utc_now
from s3t_ray.ledger.values import (
    NAMED_ALONE,
    Acceptance,
    DeletionRow,
    DeletionState,
    DuplicateSearch,
    Event,
    NotedStage,
    Preview,
    Published,
    RecordEntry,
    RecordState,
    RunningStage,
    RunRow,
    SchedulerLease,
    Similar,
    Sketching,
    SliceState,
    StageRow,
    StageState,
)
from s3t_ray.plan.stages import Stage


class Ledger(LedgerLog):
    """Thread-safe; open one per process. Close it, or use it as a context manager."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.exports = Exports(database)
        self.requests = DeletionRequests(database)
        self.callbacks = CallbackPositions(database)
        self.followers = Followers(database)
        self._receipts: deletion_progress.Receipts = {}

    @classmethod
    def open(
        cls, url: str, create: bool = False, clock: Callable[[], datetime] = utc_now, read_only: bool = False
    ) -> Ledger:
        """Open the ledger at `url` (`sqlite:///...` or `postgresql://...`), upgrading an older schema.

        `create`: create an empty ledger if there is none. `read_only`: write nothing, not even beside it; an SQLite
        ledger that cannot be read this way, or has an older schema, is read from a local copy, which is removed on
        close. LedgerError: there is no ledger, its schema is newer, or it cannot be reached.
        """
        return cls(Database.open(url, create, clock, read_only))

    @classmethod
    def open_copy(cls, url: str, clock: Callable[[], datetime] = utc_now) -> Ledger:
        """A local copy of an SQLite ledger, removed on close; for PostgreSQL, the ledger itself, read-only.

        Uses a copy because a reader of an SQLite file creates files beside it. LedgerError.
        """
        return cls(Database.open(url, False, clock, read_only=True, copied=True))

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The run and its records

    def run(self) -> RunRow | None:
        """The run this ledger belongs to; None before `ingest`."""
        with self._database.read() as connection:
            return record_rows.read_run(connection)

    def check_key(self, key_check: str) -> None:
        """LedgerError if `key_check` (`Keys.key_check`) does not match the keys that this run was created with."""
        with self._database.read() as connection:
            record_rows.check_key(connection, key_check)

    def ingest(
        self, run: RunRow, entries: Iterable[RecordEntry], sketching: Sketching | None = None
    ) -> list[SliceState]:
        """Write the run and all its records in one transaction. Returns the states of all slices, including empty ones.

        Entries are streamed; with `sketching` each has a signature. DuplicateRecord (a DataError): two share an id.
        LedgerError: the ledger already has a run, or an entry has a place that the run lacks. Both leave nothing
        written.
        """
        with self._database.read() as connection:
            record_rows.require_no_run(connection)
        self._database.require_keys()  # the ledger may not be readable while the records are inserted
        with self._database.fill() as tx:
            return record_rows.ingest(tx, run, entries, sketching)

    def set_slice_file(
        self, epoch: int, shard: int, slice_index: int, file: str, sha256: str, file_digest: str
    ) -> None:
        """Record that `file` has the rows of a slice, as of the time when its digest was `file_digest`.

        LedgerError: the slice never had this digest, or the recorded file has a later state.
        """
        with self._database.write() as tx:
            lease.require(tx, epoch)
            slice_rows.set_file(tx, shard, slice_index, file, sha256, file_digest)

    def slices(self, shard: int | None = None) -> tuple[SliceState, ...]:
        """Slices by (shard, slice), the held-out one (shard -1) first."""
        with self._database.read() as connection:
            return slice_rows.read_slices(connection, shard)

    def tombstones(self, shard: int, slice_index: int) -> frozenset[bytes]:
        """Digests of deleted records whose rows may still be in the slice's file."""
        with self._database.read() as connection:
            return slice_rows.tombstones(connection, shard, slice_index)

    def record_states(self, ids: Sequence[bytes]) -> dict[bytes, RecordState]:
        """States of the records with these id HMACs, without those that the ledger does not have."""
        with self._database.read() as connection:
            return record_rows.read_states(connection, ids)

    # Deletions

    def sketching(self) -> Sketching | None:
        """How the run's records were sketched, to find near-duplicates; None: they were not."""
        with self._database.read() as connection:
            return minhash_index.read(connection)

    def preview(
        self, ids: Sequence[bytes], subjects: Sequence[bytes] = (), search: DuplicateSearch = NAMED_ALONE
    ) -> Preview:
        """What `accept_deletion` of these would do now, and similar records. Changes nothing."""
        with self._database.read() as connection:
            return deletions.preview(connection, ids, subjects, search)

    def similar(self, named: Mapping[bytes, bytes | None], threshold: float) -> Similar:
        """Retained records similar to the `named` ones of an `Acceptance`. Changes nothing."""
        with self._database.read() as connection:
            return deletions.similar(connection, named, threshold)

    def retained(self, ids: Sequence[bytes], subjects: Sequence[bytes] = ()) -> Mapping[bytes, int]:
        """Number of retained records of each id HMAC and subject HMAC that has any."""
        with self._database.read() as connection:
            return resolve.retained(connection, ids, subjects)

    def accept_deletion(
        self,
        ids: Sequence[bytes],
        subjects: Sequence[bytes] = (),
        search: DuplicateSearch = NAMED_ALONE,
        commitment: str | None = None,
        details: RequestDetails = RequestDetails(),  # noqa: B008  # frozen
    ) -> Acceptance:
        """Delete records by id HMAC and by subject HMAC; once this returns the deletion cannot be lost.

        `search`: whether to include similar records. `commitment`: to the names, for the receipt
        (`proof/receipt.py`). `details`: stored with it, also for a repeat (`rows/request_rows.py`). One transaction
        writes tombstones, new slice digests, stale stages and the signed receipt. Repeating the same set with the same
        search changes nothing and returns the same receipt. UnknownRecords: the run has none of them, and nothing was
        stored. DataError: nothing was named. LedgerError: near-duplicates of a run without sketches, or a row that the
        run's keys did not seal.
        """
        with self._database.write() as tx:
            return deletions.accept(tx, ids, subjects, search, commitment, details)

    def deleted(
        self, ids: Iterable[bytes], subjects: Iterable[bytes], but: frozenset[int] = frozenset()
    ) -> frozenset[bytes]:
        """Which of these ids and subjects (HMACs) have a deleted record. `but`: numbers of deletions to ignore."""
        with self._database.read() as connection:
            return resolve.deleted(connection, sorted(set(ids)), sorted(set(subjects)), but)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Block all other writers of the ledger, to protect a file that two processes must not rewrite together."""
        with self._database.write():
            yield

    def deletions(self, state: DeletionState | None = None) -> tuple[DeletionRow, ...]:
        """Deletions, in the order in which they were accepted."""
        with self._database.read() as connection:
            return deletion_progress.read_deletions(connection, state, self._receipts)

    def count_deletions(self, state: DeletionState) -> int:
        """Number of deletions in this state, without reading them."""
        with self._database.read() as connection:
            return deletion_progress.count(connection, state)

    def deletion(self, request_id: str) -> DeletionRow:
        """One deletion. NoSuchDeletion (a LedgerError): no deletion has this id."""
        with self._database.read() as connection:
            return deletion_progress.read_deletion(connection, request_id)

    def requests_named(self, beginning: str) -> tuple[str, ...]:
        """Ids of up to two deletions that start with `beginning`: enough to know whether it is unique."""
        with self._database.read() as connection:
            return deletion_progress.named(connection, beginning)

    def advance(self, epoch: int, request_id: str, state: DeletionState) -> None:
        """Move a deletion to the next state (pruned or purged); no change if it is already in that state.

        LedgerError: the step goes back or skips a state; an earlier request that it `waits_for` must advance first; it
        would be `purged` while a stage that saw its records is not purged, or a slice file may contain their rows; or
        it is `restored`, which only `certify` sets.
        """
        with self._database.write() as tx:
            lease.require(tx, epoch)
            deletion_progress.advance(tx, request_id, state)
        if state is DeletionState.PURGED:
            self._database.forget_overwritten()

    # Stages

    def stages(self, shard: int | None = None, state: StageState | None = None) -> tuple[StageRow, ...]:
        """Stages, in the order in which they were accepted."""
        with self._database.read() as connection:
            return stage_rows.read_stages(connection, shard, state)

    def standing(self, shard: int) -> tuple[frozenset[str], frozenset[str]]:
        """Ids of a shard's live and stale stages, from one snapshot."""
        with self._database.read() as connection:
            return stage_rows.standing(connection, shard)

    def ever_trained(self, shard: int, orders: Sequence[tuple[int, ...]]) -> bool:
        """Whether a stage that learned exactly these slices was ever accepted, for each of these orders."""
        with self._database.read() as connection:
            return stage_rows.ever_trained(connection, shard, orders)

    def accept_stage(self, epoch: int, stage: Stage, adapter_sha256: str, slice_digests: Mapping[int, str]) -> bool:
        """Accept a published stage; False if it no longer follows from the data (purge its bytes then).

        `slice_digests`: by slice, the digests that it was trained on. False: a digest has changed, the parent is not
        live, or the id does not match this run's recipe. True again for a repeat with the same bytes. LedgerError: it
        is live with other bytes.
        """
        return self.accept_stages(epoch, [Published(stage, adapter_sha256, slice_digests)])[0]

    def accept_stages(self, epoch: int, published: Iterable[Published]) -> tuple[bool, ...]:
        """`accept_stage` for each of these, in one transaction."""
        with self._database.write() as tx:
            lease.require(tx, epoch)
            return tuple(
                stage_rows.accept(tx, each.stage, each.adapter_sha256, each.slice_digests) for each in published
            )

    def mark_stale(self, epoch: int, stage_ids: Iterable[str]) -> tuple[str, ...]:
        """Take live stages, and the live stages built on them, out of service without a deletion.

        For stages that are no longer wanted (other orders) or damaged. Returns the ids that became stale.
        """
        with self._database.write() as tx:
            lease.require(tx, epoch)
            return stage_rows.mark_stale(tx, stage_ids)

    def mark_purged(self, epoch: int, stage_ids: Iterable[str]) -> None:
        """Record that the bytes of stale stages are gone. LedgerError: a stage is unknown or live."""
        with self._database.write() as tx:
            lease.require(tx, epoch)
            stage_rows.mark_purged(tx, stage_ids)

    def record_failure(self, epoch: int, subject: FailureSubject, error: str) -> None:
        """Count a failed attempt; `error` must not quote a record."""
        with self._database.write() as tx:
            lease.require(tx, epoch)
            failure_rows.record(tx, subject, error)

    def forget_failure(self, epoch: int, subject: FailureSubject) -> None:
        """Clear the failures of a subject that succeeded. `accept_stages` does this for accepted stages."""
        with self._database.write() as tx:
            lease.require(tx, epoch)
            failure_rows.forget(tx, subject)

    def failures(self) -> tuple[FailureRow, ...]:
        """Subjects that failed since they last succeeded."""
        with self._database.read() as connection:
            return failure_rows.read(connection)

    # Scheduler and history

    def take_lease(self, holder: str) -> int:
        """Become the scheduler. Returns the new epoch; every older epoch is fenced from now on."""
        with self._database.write() as tx:
            return lease.take(tx, holder)

    def beat(self, epoch: int) -> int:
        """Record a heartbeat. Returns the new count. Fenced: a newer epoch exists."""
        with self._database.write() as tx:
            return lease.beat(tx, epoch)

    def lease(self) -> SchedulerLease:
        """The current scheduler, and its heartbeat count."""
        with self._database.read() as connection:
            return lease.read(connection)

    def contradictions(self) -> tuple[str, ...]:
        """Contradictions in the ledger, and rows that the run's keys (`bind`) did not seal. Reads every record once."""
        with self._database.read() as connection:
            found = contradictions(connection, self._database.keys, self._database.now())
        return (*found, *self._database.foreign())

    def add_event(self, kind: str, shard: int | None, detail: Mapping[str, object]) -> Event:
        """Add an event to the history. `detail` becomes JSON and must not contain personal data."""
        with self._database.write() as tx:
            return tx.event(kind, shard, detail)

    def add_events(self, kind: str, lines: Iterable[tuple[int | None, Mapping[str, object]]]) -> None:
        """Add events of one kind, as (shard, detail), in one transaction."""
        with self._database.write() as tx:
            tx.events(kind, lines)

    def note_running(self, epoch: int, running: Iterable[RunningStage]) -> None:
        """Replace the recorded stages in training."""
        with self._database.write() as tx:
            lease.require(tx, epoch)
            running_rows.note(tx, running)

    def running(self) -> tuple[NotedStage, ...]:
        """Stages in training as last recorded by a scheduler, which may be long ago."""
        with self._database.read() as connection:
            return running_rows.read(connection)

    def events(self, after: int = 0, kinds: Collection[str] | None = None) -> tuple[Event, ...]:
        """Events with a sequence number above `after`, of these kinds (None: all), in order."""
        with self._database.read() as connection:
            return read_events(connection, after, kinds)
