"""Impossible times of log entries: after a sighting, or before the preceding entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.audit.log_times import Sighting, time_problems
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.receipt import ReceiptFacts, SignedReceipt
from s3t_ray.proof.run_entry import RunEntry, RunEntryFacts
from s3t_ray.proof.signed_entry import FIRST, SignedEntry, signed
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.published_log import published
from s3t_ray.run.run import Run
from s3t_ray.tlog.cosignature import Cosigner
from tests.unit.audit.tampering import found, problems, root
from tests.unit.ledger.certify import KEYS

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PLACE = {"previous": FIRST, "run": "test", "run_id": "0" * 32}


def begun(number: int, minutes: float) -> StoredEntry:
    facts = RunEntryFacts(
        sequence=number,
        **PLACE,
        at=at(minutes),
        sealed="ingest",
        ledger_sequence=1,
        recipe_digest="r",
        base_digest="b",
        shards=1,
        slices=1,
        records=1,
        data="0" * 64,
    )
    return stored(signed(RunEntry, KEYS, facts=facts))


def receipt(number: int, minutes: float) -> StoredEntry:
    facts = ReceiptFacts(
        sequence=number,
        **PLACE,
        request_id=f"request-{number}",
        request_digest="0" * 64,
        accepted_at=at(minutes),
        records=1,
        already_deleted=0,
        unknown=0,
        stages=0,
        earlier_requests=(),
        effect="0" * 64,
        commitment=None,
    )
    return stored(signed(SignedReceipt, KEYS, facts=facts))


def at(minutes: float) -> str:
    return (NOON + timedelta(minutes=minutes)).isoformat(timespec="microseconds")


def stored(entry: SignedEntry) -> StoredEntry:
    return StoredEntry(entry.facts.sequence, "kind", entry.hash, None, entry.to_json())


def seen(size: int, minutes: float) -> Sighting:
    return Sighting("witness w", size, NOON + timedelta(minutes=minutes))


def test_entries_that_were_seen_after_they_were_made_pass() -> None:
    log = [begun(1, 0), receipt(2, 5), receipt(3, 5), receipt(4, 60)]
    assert list(time_problems(log)) == []
    assert list(time_problems(log, [seen(2, 5), seen(3, 6), seen(4, 61), seen(4, 500)])) == []
    assert list(time_problems(log, [seen(3, -4)])) == [], "clocks may be ten minutes apart"


def test_an_entry_that_was_seen_before_it_was_made_is_told() -> None:
    log = [begun(1, 0), receipt(2, 60), receipt(3, 60)]
    (told,) = time_problems(log, [seen(2, 1), seen(3, 61)])
    assert "deletion request-2" in told and "witness w saw it at 2026-06-01T12:01:00" in told
    assert len(list(time_problems(log, [seen(3, 1)]))) == 2, "who saw the third saw the second"
    assert list(time_problems(log, [seen(1, 1)])) == []


def test_an_entry_that_is_older_than_the_one_below_it_is_told() -> None:
    (told,) = time_problems([begun(1, 0), receipt(2, 60), receipt(3, 59), receipt(4, 60)])
    assert "deletion request-3" in told and "deletion request-2 before it later" in told


def test_what_an_older_version_signed_is_not_held_to_it() -> None:
    assert list(time_problems([receipt(1, 60), begun(2, 0), receipt(3, 1)])) == []


def test_an_audit_asks_the_witnesses_of_the_config(lived: Run) -> None:
    note = published(lived)
    assert note is not None
    witness = Cosigner("witness.example", Ed25519PrivateKey.generate())
    log = lived.config.log.model_copy(update={"witnesses": (f"https://witness.example {witness.key}",)})
    lived.config = lived.config.model_copy(update={"log": log})
    now = int(datetime.now(UTC).timestamp())
    (root(lived) / CHECKPOINT).write_text(str(note.with_signatures([witness.cosign(note.text, now)])))
    assert problems(lived) == ()
    (root(lived) / CHECKPOINT).write_text(str(note.with_signatures([witness.cosign(note.text, now - 3600)])))
    found(lived, "and witness witness.example saw it at")
