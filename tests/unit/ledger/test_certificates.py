"""Certificates: true to the ledger, signed, chained; anything edited, dropped, swapped or forged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.proof.certificate import Certificate, CertificateFacts, SliceChange, StageProof, issue
from s3t_ray.proof.run_log import verify_certificate, verify_chain
from s3t_ray.proof.signed_entry import FIRST, ChainHead
from tests.unit.ledger.certify import KEYS, ORDERS, OTHER, PEM, SOFTWARE


def facts(sequence: int, previous: str, request_id: str = "req") -> CertificateFacts:
    return CertificateFacts(
        sequence=sequence,
        previous=previous,
        run="tiny",
        run_id="0" * 32,
        stage="final",
        receipt="1" * 64,
        commitment=None,
        trained_to_same_bytes=(),
        recipe_digest="a" * 64,
        base_digest="b" * 64,
        request_id=f"{request_id}{sequence}",
        earlier_requests=(),
        records=2,
        already_deleted=0,
        unknown=1,
        slices=(SliceChange(shard=0, slice=1, records=2, digest_before="c" * 64, digest_after="d" * 64),),
        stages_pruned=(StageProof(id="old", adapter_sha256="e" * 64),),
        stages_live=(StageProof(id="new", adapter_sha256="f" * 64),),
        accepted_at="1",
        pruned_at="2",
        purged_at="3",
        restored_at="4",
    )


def make_chain(length: int, keys: Keys = KEYS) -> list[Certificate]:
    made: list[Certificate] = []
    for sequence in range(1, length + 1):
        previous = made[-1].hash if made else FIRST
        made.append(issue(facts(sequence, previous), keys, ORDERS, SOFTWARE))
    return made


CHAIN = make_chain(4)
TEXTS = [certificate.to_json() for certificate in CHAIN]


def test_a_genuine_certificate_verifies() -> None:
    assert verify_certificate(TEXTS[0], PEM) == CHAIN[0]
    assert verify_certificate(TEXTS[0] + "\n") == CHAIN[0]
    assert Certificate.model_validate_json(TEXTS[0]).hash == CHAIN[0].hash
    assert len(CHAIN[0].fingerprint) == 64


def test_a_whole_chain_verifies() -> None:
    head = ChainHead(sequence=4, hash=CHAIN[3].hash)
    assert verify_chain(TEXTS, PEM, head) == tuple(CHAIN)
    assert verify_chain([], PEM, ChainHead()) == ()


@given(st.data())
def test_any_edit_is_found(data: st.DataObject) -> None:
    """One character of the text, anywhere, becomes another."""
    place = data.draw(st.integers(0, len(TEXTS[1]) - 1))
    character = data.draw(st.sampled_from('0123456789abcdef"{}:, xZ'))
    edited = TEXTS[1][:place] + character + TEXTS[1][place + 1 :]
    if edited.strip() == TEXTS[1]:
        return
    with pytest.raises(VerificationFailed):
        verify_certificate(edited, PEM)
    with pytest.raises(VerificationFailed):
        verify_chain([TEXTS[0], edited, *TEXTS[2:]])


def test_every_field_is_signed() -> None:
    def leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        if isinstance(value, dict):
            return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
        if isinstance(value, list):
            return [leaf for place, inner in enumerate(value) for leaf in leaves(inner, (*path, place))]
        return [path]

    found = leaves(json.loads(TEXTS[1]))
    assert len(found) > 25
    for path in found:
        value = json.loads(TEXTS[1])
        inner = value
        for part in path[:-1]:
            inner = inner[part]
        old = inner[path[-1]]
        inner[path[-1]] = (
            (not old)
            if isinstance(old, bool)
            else old + 1
            if isinstance(old, int)
            else "x"
            if old is None
            else old[::-1] + "0"
        )
        edited = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        with pytest.raises(VerificationFailed):
            verify_certificate(edited, PEM)


def resigned_middle() -> list[str]:
    """Someone with another key rewrites one certificate, hash and all."""
    return [TEXTS[0], issue(facts(2, CHAIN[0].hash, "x"), OTHER, ORDERS, SOFTWARE).to_json(), *TEXTS[2:]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: TEXTS[1:], "entry 2 does not follow entry 0"),
        (lambda: [TEXTS[0], *TEXTS[2:]], "entry 3 does not follow entry 1"),
        (lambda: [TEXTS[1], TEXTS[0], *TEXTS[2:]], "entry 2 does not follow entry 0"),
        (lambda: [TEXTS[0], *TEXTS], "entry 1 does not follow entry 1"),
        (lambda: TEXTS[:3], "ends at entry 3, the run's ends at 4"),
        (lambda: [], "ends at entry 0"),
        (resigned_middle, "another key"),
        (lambda: [c.to_json() for c in make_chain(4, OTHER)], "another key"),
        (lambda: [TEXTS[0], issue(facts(2, "0" * 64), KEYS, ORDERS, SOFTWARE).to_json()], "2 does not follow"),
    ],
)
def test_a_chain_with_a_fault_is_refused(change: Callable[[], list[str]], reason: str) -> None:
    with pytest.raises(VerificationFailed, match=reason):
        verify_chain(change(), PEM, ChainHead(sequence=4, hash=CHAIN[3].hash))


def test_without_a_public_key_a_chain_is_of_one_key() -> None:
    with pytest.raises(VerificationFailed, match="signed with another key than the entries before"):
        verify_chain(resigned_middle()[:2])


def test_a_signature_of_other_facts_is_refused() -> None:
    moved = CHAIN[1].model_copy(update={"signature": CHAIN[2].signature})
    with pytest.raises(VerificationFailed, match="changed or forged"):
        verify_certificate(moved.to_json(), PEM)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a certificate: the whole text"),
        ("[]", "not a certificate"),
        (TEXTS[0].replace('"records":2', '"records":"2"', 1), "facts"),
        (TEXTS[0].replace("{", '{"extra":1,', 1), "extra"),
        (TEXTS[0].replace('"run":"tiny"', '"run":"evil","run":"tiny"'), "not in canonical JSON"),
        (TEXTS[0].replace(",", ", ", 1), "not in canonical JSON"),
        (TEXTS[0].replace("s3t/certificate/2", "s3t/certificate/3"), "format"),
    ],
)
def test_other_texts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(VerificationFailed, match=reason):
        verify_certificate(text, PEM)


def test_public_keys_that_are_none() -> None:
    rsa = generate_private_key(65537, 2048).public_key()
    for pem in (b"not a key", rsa.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)):
        with pytest.raises(VerificationFailed, match=r"public\.pem"):
            verify_certificate(TEXTS[0], pem)
