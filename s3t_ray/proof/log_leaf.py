"""A run's log as a Merkle log (`tlog`): its leaves, and the name and key of its checkpoints.

Pure. A leaf is the hash of a signed entry, never the entry itself. Each entry has its own signature, so nobody can
guess an entry from its leaf, and a public log reveals only the number of entries. Entry n of the run's log is leaf n -
1.
"""

from __future__ import annotations

import re

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import LogKeys, SignedEntry
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.signed_note import ED25519, VerifierKey

LEAF = "s3t-ray/leaf/1"
_ORIGIN = re.compile(r"s3t-ray/([0-9a-f]{32})")


def leaf_of(entry_hash: str) -> bytes:
    """The leaf of the entry with this hash (hex, `SignedEntry.hash`)."""
    return f"{LEAF} {entry_hash}\n".encode()


def origin_of(run_id: str) -> str:
    """The name of a run's log in its checkpoints and verifier key."""
    return f"s3t-ray/{run_id}"


def log_key(run_id: str, public_key: bytes) -> VerifierKey:
    """The verifier key for checkpoints of a run's log; `public_key`: 32 raw bytes."""
    return VerifierKey(origin_of(run_id), ED25519, public_key)


def check_inclusion(
    entry: SignedEntry,
    proof: str,
    witnesses: tuple[VerifierKey, ...] = (),
    quorum: int = 0,
    keys: LogKeys | None = None,
) -> tuple[LogHead, dict[VerifierKey, int]]:
    """The checkpoint of the run's log that includes this entry, whose signature must already be verified.

    `proof`: text of a c2sp.org/tlog-proof. Also returns when each of `witnesses` cosigned the checkpoint (seconds since
    1970). `keys`: keys of the log, any of which may have signed the checkpoint during its time; None: the key that
    signed the entry. VerificationFailed: it does not prove this, or fewer than `quorum` of the witnesses cosigned.
    """
    found = LogProof.parse(proof)
    origin = LogHead.parse(found.checkpoint.text).origin
    named = _ORIGIN.fullmatch(origin)
    run_id = getattr(entry.facts, "run_id", None)  # the first format has none
    if named is None or run_id not in (None, named[1]):
        raise VerificationFailed(
            f"the proof is for log {origin!r}, but the entry is from run {entry.facts.run!r} ({run_id})",
            "give the proof that came with this entry",
        )
    if found.index != entry.facts.sequence - 1:
        raise VerificationFailed(
            f"the proof is for entry {found.index + 1} of the log, but this is entry {entry.facts.sequence}",
            "give the proof that came with this entry",
        )
    size = LogHead.parse(found.checkpoint.text).size
    mine = {key: last for key, (_, last) in (keys.spans if keys is not None else {}).items()} or {
        entry.public_key: None
    }
    candidates = [log_key(named[1], bytes.fromhex(key)) for key, last in mine.items() if last is None or size <= last]
    signed = found.checkpoint.signed_by(candidates)
    key = signed[0] if signed else log_key(named[1], bytes.fromhex(entry.public_key))
    return found.check(leaf_of(entry.hash), key, witnesses, quorum)
