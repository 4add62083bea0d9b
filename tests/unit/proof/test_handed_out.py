"""Issued proofs stay verifiable: old formats, receipts with their nonce, some entries of a log."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.certificate import (
    Certificate,
    CertificateFacts,
    CertificateV1,
    StageProof,
    issue,
)
from s3t_ray.proof.handed_out import check_handed_out, check_receipt
from s3t_ray.proof.receipt import HandedReceipt, ReceiptFacts, SignedReceipt, commitment_to, read_handed
from s3t_ray.proof.run_log import claimed_key, verify_certificate, verify_chain, verify_entry
from s3t_ray.proof.signed_entry import FIRST, LogKeys, raw_public_key, signed
from tests.unit.ledger.certify import KEYS, ORDERS, OTHER, PEM, SOFTWARE

FROZEN = Path(__file__).with_name("certificates_of_format_1.jsonl").read_text().splitlines()
"""Issued by the version at commit 1b02291, with the keys of `tests/unit/ledger/certify.py`."""
NONCE = "7" * 64


def receipt(sequence: int = 1, previous: str = FIRST) -> SignedReceipt:
    facts = ReceiptFacts(
        sequence=sequence,
        previous=previous,
        run="tiny",
        run_id="0" * 32,
        request_id="req",
        request_digest="4" * 64,
        accepted_at="1",
        records=1,
        already_deleted=0,
        unknown=0,
        stages=1,
        earlier_requests=(),
        effect="5" * 64,
        commitment=commitment_to(NONCE, ["r3"], ["ann"]),
    )
    return signed(SignedReceipt, KEYS, facts=facts)


def certificate(sequence: int, previous: str, **changes: object) -> Certificate:
    facts: dict[str, object] = {
        "sequence": sequence,
        "previous": previous,
        "run": "tiny",
        "run_id": "0" * 32,
        "stage": "final",
        "receipt": receipt().hash,
        "commitment": receipt().facts.commitment,
        "recipe_digest": "a",
        "base_digest": "b",
        "request_id": "req",
        "earlier_requests": (),
        "records": 1,
        "already_deleted": 0,
        "unknown": 0,
        "slices": (),
        "stages_pruned": (StageProof(id="old", adapter_sha256="e"),),
        "stages_live": (StageProof(id="new", adapter_sha256="f"),),
        "trained_to_same_bytes": (),
        "accepted_at": "1",
        "pruned_at": "2",
        "purged_at": "3",
        "restored_at": "4",
    }
    return issue(CertificateFacts(**{**facts, **changes}), KEYS, ORDERS, SOFTWARE)  # type: ignore[arg-type]


def test_certificates_of_the_first_format_are_verifiable_for_ever() -> None:
    first, second = verify_chain(FROZEN, PEM)
    assert isinstance(first, CertificateV1) and isinstance(second, CertificateV1)
    assert verify_certificate(FROZEN[1], PEM).facts.request_id == "req2"
    assert check_handed_out(FROZEN, PEM) == ((first, second), 0)
    with pytest.raises(VerificationFailed, match="changed or forged"):
        verify_certificate(FROZEN[0].replace('"records":2', '"records":3'), PEM)


def test_the_log_continues_after_certificates_of_the_first_format() -> None:
    second = verify_certificate(FROZEN[1])
    after = receipt(3, second.hash)
    assert verify_chain([*FROZEN, after.to_json()], PEM)[2] == after


def test_a_receipt_tells_whose_it_is_to_who_has_the_nonce_and_the_names() -> None:
    handed = HandedReceipt(receipt=receipt(), nonce=NONCE)
    again = read_handed(handed.to_json() + "\n")
    assert again == handed
    assert again.is_of(["r3"], ["ann"]) and not again.is_of(["r3"], []) and not again.is_of(["r3", "r4"], ["ann"])
    assert NONCE not in handed.receipt.to_json()
    assert not HandedReceipt(receipt=receipt(), nonce="8" * 64).is_of(["r3"], ["ann"])


def test_a_certificate_belongs_to_its_receipt() -> None:
    text = HandedReceipt(receipt=receipt(), nonce=NONCE).to_json()
    own = certificate(2, receipt().hash)
    assert check_receipt(text, PEM, [own], ["r3"], ["ann"]) == receipt()
    with pytest.raises(VerificationFailed, match="does not name exactly the given"):
        check_receipt(text, PEM, [own], ["r4"], [])
    with pytest.raises(VerificationFailed, match="does not belong to the deletion of this receipt"):
        check_receipt(text, PEM, [certificate(2, FIRST, receipt="9" * 64)], [], [])
    with pytest.raises(VerificationFailed, match="does not belong to the deletion of this receipt"):
        check_receipt(text, PEM, [verify_certificate(FROZEN[1])], [], [])  # the first format names no receipt
    with pytest.raises(VerificationFailed, match="are both number 1 of the log"):
        check_receipt(
            text, PEM, [signed(SignedReceipt, KEYS, facts=receipt().facts.model_copy(update={"records": 9}))], [], []
        )
    with pytest.raises(VerificationFailed, match="another key"):
        check_receipt(text, OTHER.public_key_pem, [own], [], [])


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", json.dumps({"receipt": {}, "nonce": NONCE}), '{"nonce":null,"nonce":null}']
)
def test_what_is_not_a_receipt(text: str) -> None:
    with pytest.raises(VerificationFailed, match="this is not a receipt"):
        read_handed(text)


def test_a_receipt_that_says_two_things_is_refused() -> None:
    text = HandedReceipt(receipt=receipt(), nonce=NONCE).to_json()
    for once, twice in (('"records":1', '"records":9,"records":1'), ('"nonce":', '"nonce":null,"nonce":')):
        with pytest.raises(VerificationFailed, match="contradicts itself"):
            read_handed(text.replace(once, twice))
    assert read_handed(json.dumps(json.loads(text), indent=1)) == read_handed(text)  # as the service's JSON has it


def test_brackets_without_end_are_no_entry() -> None:
    text = "[" * 100_000
    assert claimed_key(text) is None
    with pytest.raises(VerificationFailed, match="this is not a certificate"):
        verify_entry(text, PEM)


def test_a_public_key_of_an_unknown_kind() -> None:
    ed25519, unknown = bytes.fromhex("2b6570"), bytes.fromhex("2b6575")
    der = load_pem_public_key(PEM).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = base64.b64encode(der.replace(ed25519, unknown))
    with pytest.raises(VerificationFailed, match="not an Ed25519 key"):
        raw_public_key(b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n")


def test_entries_from_the_middle_of_a_log() -> None:
    first = receipt()
    second, fifth = certificate(2, first.hash), certificate(5, "1" * 64)
    texts = [fifth.to_json(), first.to_json(), second.to_json()]
    assert check_handed_out(texts, PEM) == ((first, second, fifth), 2)
    with pytest.raises(VerificationFailed, match="does not follow entry 1"):
        check_handed_out([first.to_json(), certificate(2, FIRST).to_json()], PEM)
    with pytest.raises(VerificationFailed, match="are both number 2"):
        check_handed_out([second.to_json(), certificate(2, first.hash, records=7).to_json()], PEM)
    with pytest.raises(VerificationFailed, match="are from two runs"):
        check_handed_out([first.to_json(), certificate(3, FIRST, run_id="1" * 32).to_json()], PEM)


def test_an_erased_adapter_is_never_live() -> None:
    same = (StageProof(id="new", adapter_sha256="e"),)
    with pytest.raises(VerificationFailed, match="as erased, and as live"):
        verify_certificate(certificate(1, FIRST, stages_live=same).to_json(), PEM)
    # Unless a worker trained it anew: what was deleted had taught nothing.
    assert verify_certificate(certificate(1, FIRST, stages_live=same, trained_to_same_bytes=("new",)).to_json(), PEM)


def test_times_that_run_backwards() -> None:
    with pytest.raises(VerificationFailed, match="in the wrong order"):
        verify_certificate(certificate(1, FIRST, purged_at="1.5").to_json(), PEM)


@pytest.mark.parametrize(("last", "told"), [(4, "entries 1 to 4"), (None, "entries from 7 on")])
def test_a_key_that_signed_other_entries_of_the_run_is_told_from_a_foreign_one(last: int | None, told: str) -> None:
    """A receipt from a history that a restored run has lost is genuine; the log has another entry in its place."""
    ours = KEYS.public_key.hex()
    entry = receipt(sequence=5)
    verify_entry(entry.to_json(), LogKeys({ours: (1, None)}))
    with pytest.raises(VerificationFailed, match=f"is entry 5, but its key signs only the run's {told}") as caught:
        verify_entry(entry.to_json(), LogKeys({ours: (1 if last else 7, last)}))
    assert "restored from a backup" in caught.value.fix
    with pytest.raises(VerificationFailed, match="signed by another key"):
        verify_entry(entry.to_json(), LogKeys({OTHER.public_key.hex(): (1, None)}))
