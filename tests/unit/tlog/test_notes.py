"""Signed notes, checkpoints, cosignatures and proofs: what they look like, and that nothing changed passes."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.cosignature import Cosigner, cosigned_by
from s3t_ray.tlog.log_head import LogHead, verified
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.merkle import leaf_hash, node_hash
from s3t_ray.tlog.signed_note import NoteSigner, SignedNote, VerifierKey

LOG = NoteSigner.of("runs.example/alpaca", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
WITNESS = Cosigner("witness.example", Ed25519PrivateKey.from_private_bytes(b"w" * 32))
# The example key of the note format's reference implementation in Go (golang.org/x/mod/sumdb/note).
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_the_reference_implementation_is_read_and_checked() -> None:
    key = VerifierKey.parse(GO_KEY)
    assert str(key) == GO_KEY
    note = SignedNote.parse(GO_NOTE)
    assert note.signed_by([key]) == (key,)
    assert str(note) == GO_NOTE
    with pytest.raises(VerificationFailed, match="not genuine"):
        SignedNote.parse(GO_NOTE.replace("cryptography", "blockchain")).signed_by([key])


def test_half_a_surrogate_pair_makes_no_note() -> None:
    with pytest.raises(VerificationFailed, match="not a signed note"):
        SignedNote.parse("\udc80" + str(LOG.sign("text\n")))
    with pytest.raises(VerificationFailed, match="not a signed note"):
        SignedNote.parse(str(LOG.sign("text\n")).replace("runs", "\udc80"))


def test_a_signature_of_an_unknown_key_is_ignored() -> None:
    note = LOG.sign("hello\n")
    assert note.signed_by([VerifierKey.parse(GO_KEY)]) == ()
    assert SignedNote.parse(str(note).replace("\u2014 runs", "\u2014 ruins")).signed_by([LOG.key]) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        "name+00000000+AAAA",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        "a b+c74f20a3+" + GO_KEY[22:],
        "\udcff" + GO_KEY,
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(VerificationFailed, match="verifier key"):
        VerifierKey.parse(text)


@given(st.text(max_size=300))
def test_no_text_but_a_note_is_a_note(text: str) -> None:
    try:
        note = SignedNote.parse(text)
    except VerificationFailed:
        return
    assert str(note) == text


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_byte_changed_anywhere_is_never_accepted(place: int, value: int) -> None:
    head = LogHead("runs.example/alpaca", 7, b"r" * 32)
    original = str(LOG.sign(head.text())).encode()
    place %= len(original)
    changed = original[:place] + bytes([value]) + original[place + 1 :]
    try:
        found = verified(SignedNote.parse(changed.decode()), LOG.key)
    except (VerificationFailed, UnicodeDecodeError):
        return
    assert found == head  # only what nobody signed may differ


@pytest.mark.parametrize(
    "text",
    [
        "origin\n3\n",
        "origin\n03\n" + base64.b64encode(b"r" * 32).decode() + "\n",
        "origin\n-1\n" + base64.b64encode(b"r" * 32).decode() + "\n",
        "origin\n\u0663\n" + base64.b64encode(b"r" * 32).decode() + "\n",
        "origin\n3\n" + base64.b64encode(b"r" * 31).decode() + "\n",
        "origin\n99999999999999999999999\n" + base64.b64encode(b"r" * 32).decode() + "\n",
        f"origin\n{2**63}\n" + base64.b64encode(b"r" * 32).decode() + "\n",
        f"origin\n{'9' * 5000}\n" + base64.b64encode(b"r" * 32).decode() + "\n",  # more digits than Python reads
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(VerificationFailed, match="not a checkpoint"):
        LogHead.parse(text)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(VerificationFailed, match=r"from log 'other\.example'"):
        verified(LOG.sign(LogHead("other.example", 1, b"r" * 32).text()), LOG.key)
    with pytest.raises(VerificationFailed, match=r"not signed by other\.example"):
        other = NoteSigner.of("other.example", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
        verified(LOG.sign(LogHead("runs.example/alpaca", 1, b"r" * 32).text()), other.key)


def proof_of(entry: bytes, cosigned: bool = False) -> LogProof:
    """`entry` as the second of two."""
    first = leaf_hash(b"first")
    head = LogHead(LOG.key.name, 2, node_hash(first, leaf_hash(entry)))
    note = LOG.sign(head.text())
    return LogProof(1, (first,), note.with_signatures([WITNESS.cosign(note.text, 1_700_000_000)]) if cosigned else note)


def test_a_proof_is_a_text_that_shows_the_entry_in_the_log() -> None:
    proof = proof_of(b"mine", cosigned=True)
    again = LogProof.parse(str(proof))
    assert again == proof
    assert str(proof).startswith("c2sp.org/tlog-proof@v1\nindex 1\n")
    head, seen = again.check(b"mine", LOG.key, [WITNESS.key], quorum=1)
    assert (head.size, seen) == (2, {WITNESS.key: 1_700_000_000})
    extra = str(proof).replace("index 1", "extra bWluZQ==\nindex 1")
    assert LogProof.parse(extra) == proof


def test_a_proof_of_another_document_or_without_its_witness_is_refused() -> None:
    with pytest.raises(VerificationFailed, match="not at place 1"):
        proof_of(b"mine").check(b"yours", LOG.key)
    with pytest.raises(VerificationFailed, match="0 of the witnesses"):
        proof_of(b"mine").check(b"mine", LOG.key, [WITNESS.key], quorum=1)
    text = str(proof_of(b"mine", cosigned=True))
    line = next(each for each in text.splitlines() if "witness.example" in each)
    other_time = WITNESS.cosign("something else\n", 1).line().strip()
    with pytest.raises(VerificationFailed, match="not genuine"):
        LogProof.parse(text.replace(line, other_time)).check(b"mine", LOG.key, [WITNESS.key])
    for broken in ("", text.replace("index 1", "index 01"), text.replace("c2sp.org", "c2sp.com"), text[:60]):
        with pytest.raises(VerificationFailed):
            LogProof.parse(broken)


def test_a_time_that_was_changed_voids_a_cosignature() -> None:
    note = LOG.sign(LogHead(LOG.key.name, 1, b"r" * 32).text())
    signed = note.with_signatures([WITNESS.cosign(note.text, 1000)])
    assert cosigned_by(signed, [WITNESS.key]) == {WITNESS.key: 1000}
    value = signed.signatures[1].value
    later = note.with_signatures([type(signed.signatures[1])("witness.example", WITNESS.key.id, b"\0" * 8 + value[8:])])
    with pytest.raises(VerificationFailed, match="not genuine"):
        cosigned_by(later, [WITNESS.key])
