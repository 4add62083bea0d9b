"""A witness (c2sp.org/tlog-witness): cosigns a log's checkpoint only if it extends every checkpoint it saw before.

In: `add-checkpoint` requests. Out: an HTTP status and a body. The holder of a log's key can then neither show different
histories to different people nor rewrite one without being refused. The state is a small SQLite file: the newest
checkpoint of each log is on disk before its cosignature is returned.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from s3t_ray.errors import StoreError, VerificationFailed
from s3t_ray.tlog.cosignature import Cosigner
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.log_proof import MOST_HASHES, decoded_hashes
from s3t_ray.tlog.merkle import EMPTY_ROOT, is_consistent
from s3t_ray.tlog.signed_note import SignedNote, VerifierKey

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")

_TABLE = """
CREATE TABLE IF NOT EXISTS witnessed (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note TEXT NOT NULL
)
"""


@dataclass(frozen=True)
class WitnessReply:
    """The response of the witness."""

    status: int
    body: str
    content_type: str = TEXT_TYPE


@dataclass(frozen=True)
class Witnessed:
    """The newest checkpoint of a log that the witness cosigned."""

    size: int
    root: bytes
    note: str


NOTHING_SEEN = Witnessed(0, EMPTY_ROOT, "")


@dataclass(frozen=True)
class AddCheckpoint:
    """A request: the size that the log assumes the witness saw last, the proof, the new checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    note: SignedNote
    checkpoint: LogHead

    @classmethod
    def parse(cls, body: str) -> AddCheckpoint:
        """Parse a request. Raises VerificationFailed for any other body."""
        head, _, note = body.partition("\n\n")
        lines = head.split("\n")
        old = _OLD.fullmatch(lines[0])
        if old is None or len(lines) - 1 > MOST_HASHES:
            raise VerificationFailed(
                "the request does not start with `old` and a size",
                "send a request as described at c2sp.org/tlog-witness",
            )
        signed = SignedNote.parse(note)
        return cls(int(old[1]), decoded_hashes(lines[1:]), signed, LogHead.parse(signed.text))


def refusal_of(request: AddCheckpoint, keys: Sequence[VerifierKey], seen: Witnessed) -> WitnessReply | None:
    """The reason why the witness does not cosign; None: it cosigns. Pure.

    The status codes are those of the protocol: 409 is a conflict with what the witness saw, such as another root at the
    same size; 422 is an invalid proof.
    """
    head = request.checkpoint
    trusted = [key for key in keys if key.name == head.origin]
    if not trusted:
        return WitnessReply(404, "this witness does not know that log\n")
    try:
        signed = request.note.signed_by(trusted)
    except VerificationFailed as error:
        return WitnessReply(403, f"{error.problem}\n")
    if not signed:
        return WitnessReply(403, "the checkpoint is not signed by the log's key\n")
    if request.old_size > head.size:
        return WitnessReply(400, "the old size is above the checkpoint's\n")
    other_root = request.old_size == head.size and head.root != seen.root
    if request.old_size != seen.size or other_root:
        return WitnessReply(409, f"{seen.size}\n", SIZE_TYPE)
    if not is_consistent(seen.size, seen.root, head.size, head.root, request.proof):
        return WitnessReply(422, f"the checkpoint does not continue the log's {seen.size} entries that were seen\n")
    return None


class Witness:
    """Cosigns for the logs with the given keys. Thread-safe, also with other processes on the same file."""

    def __init__(
        self,
        state: Path,
        cosigner: Cosigner,
        logs: Sequence[VerifierKey],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = state
        self._cosigner = cosigner
        self._logs = tuple(logs)
        self._clock = clock
        self._lock = threading.Lock()
        try:
            state.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection:
                connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the witness cannot keep its state at {state}: {error}",
                "use a writable file on a local disk",
            ) from error

    @property
    def key(self) -> VerifierKey:
        """The public key, for everyone who trusts this witness."""
        return self._cosigner.key

    def add_checkpoint(self, body: str) -> WitnessReply:
        """Cosign, or return the reason for refusing. A cosigned checkpoint is durable when this returns."""
        try:
            request = AddCheckpoint.parse(body)
        except VerificationFailed as error:
            return WitnessReply(400, f"{error.problem}\n")
        with self._lock, closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")  # read the last size and write the next in one transaction
            refused = refusal_of(request, self._logs, _seen(connection, request.checkpoint.origin))
            if refused is not None:
                connection.rollback()
                return refused
            line = self._cosigner.cosign(request.note.text, int(self._clock()))
            head, note = request.checkpoint, request.note.with_signatures([line])
            connection.execute(
                "INSERT INTO witnessed VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE "
                "SET size = excluded.size, root = excluded.root, note = excluded.note",
                (head.origin, head.size, head.root, str(note)),
            )
            connection.commit()
        return WitnessReply(200, line.line())

    def checkpoint(self, origin_hash: str) -> str | None:
        """The newest cosigned checkpoint of the log whose origin has this SHA-256 (hex); None if there is none."""
        with closing(self._connect()) as connection:
            for origin, note in connection.execute("SELECT origin, note FROM witnessed"):
                if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                    return str(note)
        return None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection


def _seen(connection: sqlite3.Connection, origin: str) -> Witnessed:
    row = connection.execute("SELECT size, root, note FROM witnessed WHERE origin = ?", (origin,)).fetchone()
    return Witnessed(int(row[0]), bytes(row[1]), str(row[2])) if row else NOTHING_SEEN
