"""The witnesses of a run's log: third-party processes that cosign its checkpoints (c2sp.org/tlog-witness).

In: a run whose log is published, and the witnesses in its config. Out: their cosignatures, in the published checkpoint,
or what each answered instead. Needs the run's files, but no key: the checkpoint is already signed.
"""

from __future__ import annotations

import base64
import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException

from s3t_ray.errors import S3TError, StoreError, VerificationFailed
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.published_log import published, reader
from s3t_ray.run.run import Run
from s3t_ray.tlog.cosignature import cosigned_by
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.merkle import consistency_path
from s3t_ray.tlog.signed_note import COSIGNATURE, NoteSignature, SignedNote, VerifierKey
from s3t_ray.tlog.tiles import TiledLog

TIMEOUT_SECONDS = 10.0
MOST_REPLY_BYTES = 64 * 1024


@dataclass(frozen=True)
class WitnessAddress:
    """Address of a witness, and the key that verifies its cosignatures."""

    url: str  # without a slash at its end
    key: VerifierKey

    @classmethod
    def parse(cls, text: str) -> WitnessAddress:
        """Parse `URL KEY`. VerificationFailed."""
        url, _, key = text.strip().partition(" ")
        found = cls(url.rstrip("/"), VerifierKey.parse(key))
        if found.key.kind != COSIGNATURE or not url.startswith(("http://", "https://")):
            raise VerificationFailed(
                f"not the address and key of a witness: {text[:120]!r}",
                "give its http address, a space, and the key that `s3t witness init` prints",
            )
        return found


@dataclass(frozen=True)
class WitnessAnswer:
    """The answer of one witness to a checkpoint."""

    name: str
    cosignature: NoteSignature | None
    problem: str | None = None
    saw_another_log: bool = False
    """Whether it has cosigned a history that this log does not continue: the log was reset, forked or rewritten."""


class SawAnotherLog(VerificationFailed):
    """A witness has cosigned another history of this log."""


def witnesses_of(run: Run) -> tuple[WitnessAddress, ...]:
    """The witnesses in the config. VerificationFailed: an address has an invalid key."""
    return tuple(WitnessAddress.parse(text) for text in run.config.log.witnesses)


def cosign(run: Run, note: SignedNote) -> tuple[WitnessAnswer, ...]:
    """Ask each witness of the config to cosign this published checkpoint, and publish what they sign.

    Asks every witness, whatever the others answer, even those that have already signed it: they may have seen newer
    entries, which a run that was reset with its files has lost.
    """
    answers = tuple(_ask(run, witness, note) for witness in witnesses_of(run))
    add_signatures(run, note.text, [answer.cosignature for answer in answers if answer.cosignature is not None])
    return answers


def require_cosigned(answers: Iterable[WitnessAnswer]) -> None:
    """SawAnotherLog: a witness has seen another log. StoreError: a cosignature is missing."""
    answers = tuple(answers)
    for answer in answers:
        if answer.saw_another_log:
            raise SawAnotherLog(
                f"witness {answer.name} does not cosign the run's log: {answer.problem}",
                "the log was taken back, forked or rewritten: run `s3t audit` to investigate, and restore the newest "
                "ledger",
            )
    missing = [f"{answer.name}: {answer.problem}" for answer in answers if answer.cosignature is None]
    if missing:
        raise StoreError(
            f"not all witnesses cosigned the log ({'; '.join(missing)})",
            "check that they are running and know the log's key (`s3t head RUN --key`); they will be asked again",
        )


def add_signatures(run: Run, text: str, signatures: Sequence[NoteSignature]) -> None:
    """Publish signatures of this checkpoint, if it is still the newest, replacing those of the same keys."""
    if not signatures:
        return
    with run.ledger.alone():
        now = published(run)
        if now is not None and now.text == text:
            renewed = {(line.name, line.key_id) for line in signatures}
            kept = tuple(line for line in now.signatures if (line.name, line.key_id) not in renewed)
            run.store.write_bytes(CHECKPOINT, str(SignedNote(text, kept).with_signatures(signatures)).encode())


def newest_seen(witness: WitnessAddress, origin: str) -> SignedNote | None:
    """The newest checkpoint of the log that the witness says it cosigned; None: it has seen none.

    StoreError: it does not answer. VerificationFailed: the answer is not cosigned by it.
    """
    name = hashlib.sha256(origin.encode()).hexdigest()
    status, body = _http(f"{witness.url}/{name}/checkpoint", None)
    if status == 404:
        return None
    if status != 200:
        raise StoreError(f"witness {witness.key.name} answers {status}: {body[:200]}", "ask its operator")
    note = SignedNote.parse(body)
    if witness.key not in cosigned_by(note, [witness.key]):
        raise VerificationFailed(
            f"what {witness.url} returned is not cosigned by {witness.key.name}", "check its address and key"
        )
    return note


def _ask(run: Run, witness: WitnessAddress, note: SignedNote) -> WitnessAnswer:
    name = witness.key.name
    try:
        return _submit(run, witness, note)
    except S3TError as error:
        return WitnessAnswer(name, None, error.problem)


def _submit(run: Run, witness: WitnessAddress, note: SignedNote) -> WitnessAnswer:
    """Submit a checkpoint. The witness reports how much of the log it has seen, so this is not stored here."""
    name, head = witness.key.name, LogHead.parse(note.text)
    subtree = TiledLog(head.size, reader(run)).subtree
    old, tried = _guess(head.size), set[int]()
    while True:
        tried.add(old)
        proof = "".join(base64.b64encode(each).decode() + "\n" for each in consistency_path(old, head.size, subtree))
        status, body = _http(f"{witness.url}/add-checkpoint", f"old {old}\n{proof}\n{note}")
        if status == 200:
            return _accepted(witness, note, body)
        seen = int(body) if status == 409 and body.strip().isdecimal() and len(body) < 20 else None
        if seen is not None and seen > head.size:
            return _longer(run, name, head, seen)
        if seen is not None and seen not in tried:
            old = seen
            continue
        if status == 422 or seen is not None:
            return WitnessAnswer(name, None, f"it saw {old} other entries ({status})", saw_another_log=True)
        return WitnessAnswer(name, None, f"it answers {status}: {body.strip()[:200]}")


def _guess(size: int) -> int:
    """A guess of the size that the witness saw last: nothing yet, or all but the newest. It corrects wrong guesses."""
    return max(size - 1, 0)


def _longer(run: Run, name: str, head: LogHead, seen: int) -> WitnessAnswer:
    """The answer of a witness that saw more entries: others published in the meantime, or the log was reset."""
    now = published(run)
    newest = 0 if now is None else LogHead.parse(now.text).size
    if newest >= seen:
        return WitnessAnswer(name, None, "a newer checkpoint was published and cosigned meanwhile")
    return WitnessAnswer(
        name, None, f"it saw {seen} entries of the log, which has {head.size} now", saw_another_log=True
    )


def _accepted(witness: WitnessAddress, note: SignedNote, body: str) -> WitnessAnswer:
    lines = SignedNote.parse(f"{note.text}\n{body}").signatures
    mine = tuple(line for line in lines if (line.name, line.key_id) == (witness.key.name, witness.key.id))
    if witness.key not in cosigned_by(SignedNote(note.text, mine), [witness.key]):
        return WitnessAnswer(witness.key.name, None, "it answers with a signature of another key")
    return WitnessAnswer(witness.key.name, mine[-1])


def _http(url: str, body: str | None) -> tuple[int, str]:
    """Status and text of the answer. StoreError: there is none."""
    request = urllib.request.Request(url, None if body is None else body.encode())
    request.add_header("Content-Type", "text/plain; charset=utf-8")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read(MOST_REPLY_BYTES).decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(MOST_REPLY_BYTES).decode(errors="replace")
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise StoreError(
            f"{url} does not answer: {error}", "check the address, and that the witness is running"
        ) from error
