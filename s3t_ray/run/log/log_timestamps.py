"""Checkpoints of a run's log with the timestamp of a third-party authority (RFC 3161), stored with the log.

In: a run whose config names a timestamp server. Out: `log/timestamps/SIZE/`, with the checkpoint and the server's
reply, written last. Asking needs no key of the run.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException

from s3t_ray.errors import LedgerError, StoreError, VerificationFailed
from s3t_ray.run.log.published_log import REPLY, STAMPED, TIMESTAMPS, is_of_log, require_genuine
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.signed_note import SignedNote
from s3t_ray.tlog.timestamp import REQUEST_TYPE, granted, request_for

TIMEOUT_SECONDS = 10.0
MOST_REPLY_BYTES = 256 * 1024


class Timestamps:
    """Gets timestamps for checkpoints, at most as often as the config says. Belongs to one process."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._last: float | None = None

    def stamp(self, note: SignedNote) -> bool:
        """Get a timestamp for this checkpoint if one is due. Returns whether it did. StoreError: none was issued."""
        settings = self._run.config.log
        now = self._clock()
        if settings.timestamps is None or (self._last is not None and now - self._last < settings.timestamp_seconds):
            return False
        folder = f"{layout.LOG}/{TIMESTAMPS}/{LogHead.parse(note.text).size}"
        if not self._run.store.exists(f"{folder}/{REPLY}"):
            reply = _ask(settings.timestamps, note.text)
            self._run.store.write_bytes(f"{folder}/{STAMPED}", str(note).encode())
            self._run.store.write_bytes(f"{folder}/{REPLY}", reply)
        self._last = now
        return True


def stamped_checkpoint(run: Run, sequence: int) -> tuple[SignedNote, bytes]:
    """The earliest stamped checkpoint that covers entry `sequence` of the log, and the server's reply (DER).

    LedgerError: there is none yet. VerificationFailed: the run's key did not sign it.
    """
    root = f"{layout.LOG}/{TIMESTAMPS}/"
    replies = [path for path in run.store.files(root.rstrip("/")) if path.endswith(f"/{REPLY}")]
    sizes = sorted(int(path.removeprefix(root).partition("/")[0]) for path in replies)
    size = next((each for each in sizes if each >= sequence), None)
    if size is None:
        raise LedgerError(
            f"no checkpoint with entry {sequence} has been stamped yet",
            "set log.timestamps to a timestamp server, and run `s3t head RUN --publish`",
        )
    note = SignedNote.parse(run.store.read_bytes(f"{root}{size}/{STAMPED}").decode(errors="replace"))
    require_genuine(run, note)
    return note, run.store.read_bytes(f"{root}{size}/{REPLY}")


def stamped_otherwise(run: Run) -> Iterator[tuple[str, LogHead | str]]:
    """Each stamped checkpoint by its path, as a genuine head, or a description of the problem."""
    root = f"{layout.LOG}/{TIMESTAMPS}"
    for path in run.store.files(root):
        folder, _, name = path.rpartition("/")
        if name == REPLY and not run.store.exists(f"{folder}/{STAMPED}"):
            yield path, "is of no checkpoint"
        if name != STAMPED or not is_of_log(path):
            continue
        try:
            note = SignedNote.parse(run.store.read_bytes(path).decode(errors="replace"))
            require_genuine(run, note)
        except VerificationFailed as error:
            yield path, f"is no checkpoint of this log: {error.problem}"
            continue
        head = LogHead.parse(note.text)
        reply = f"{folder}/{REPLY}"
        if folder != f"{root}/{head.size}":
            yield path, f"is of {head.size} entries, which its folder does not say"
        elif run.store.exists(reply) and not granted(run.store.read_bytes(reply), note.text):
            yield reply, "is not a timestamp of the checkpoint beside it"
        yield path, head


def _ask(url: str, text: str) -> bytes:
    request = urllib.request.Request(url, request_for(text), {"Content-Type": REQUEST_TYPE})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            reply: bytes = answer.read(MOST_REPLY_BYTES)
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise StoreError(
            f"timestamp server {url} does not answer: {error}", "check log.timestamps, and that it can be reached"
        ) from error
    if not granted(reply, text):
        raise StoreError(
            f"timestamp server {url} did not give a timestamp", "check log.timestamps: it must speak RFC 3161"
        )
    return reply
