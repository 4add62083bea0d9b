"""Certificates: what a deletion did, signed with Ed25519 and chained by hash.

In: facts read from the ledger, the run's keys, what the caller knows of software and orders. Out: a
frozen `Certificate` with one canonical JSON form. Anyone with the public key can verify one, or a
whole chain: an edited, dropped, swapped or forged certificate is refused. A certificate holds no id
and no content, only counts, digests and stage ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from s3t_ray.errors import VerificationFailed

FIRST = "0" * 64
"""`previous` of the first certificate."""
FORMAT = "s3t/certificate/1"
_FAMILY = "s3t/certificate/"
_DOMAIN = b"s3t/certificate/1\n"

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ChainHead(_Value):
    """Where the chain ends: number and hash of its newest certificate."""

    sequence: Count = 0
    hash: Digest = FIRST


class SliceChange(_Value):
    """Records that left one slice, and its digest before and after."""

    shard: int
    slice: Count
    records: PositiveInt
    digest_before: Digest
    digest_after: Digest


class StageProof(_Value):
    """A stage and the SHA-256 of its adapter's bytes."""

    id: str
    adapter_sha256: str


class CertificateFacts(_Value):
    """What the ledger says of one deletion."""

    sequence: PositiveInt
    previous: Digest
    run: str
    recipe_digest: str
    base_digest: str
    request_id: str
    earlier_requests: tuple[str, ...]  # that had deleted some of the records this one names
    records: Count
    already_deleted: Count
    unknown: Count
    slices: tuple[SliceChange, ...]
    stages_pruned: tuple[StageProof, ...]
    stages_live: tuple[StageProof, ...]  # of the shards touched, when the certificate was made
    accepted_at: str
    pruned_at: str
    purged_at: str
    restored_at: str


class OrderChoice(_Value):
    """How the orders of slices were chosen, and whether earlier deletions had a say in it."""

    kind: str
    depends_on_history: bool


class Certificate(_Value):
    """Signed facts."""

    format: Literal["s3t/certificate/1"] = "s3t/certificate/1"
    facts: CertificateFacts
    orders: OrderChoice
    software: dict[str, str]
    public_key: Digest  # raw Ed25519, hex
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, in hex: what to compare by eye or phone."""
        return hashlib.sha256(bytes.fromhex(self.public_key)).hexdigest()

    @property
    def hash(self) -> str:
        """What the next certificate of the chain names as its `previous`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The one canonical form: sorted keys, no spaces."""
        return _canonical(self.model_dump(mode="json"))


class Signer(Protocol):
    """The part of `Keys` that signs."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


def issue(facts: CertificateFacts, signer: Signer, orders: OrderChoice, software: Mapping[str, str]) -> Certificate:
    """Sign the facts. `software`: name -> version of what decides weights."""
    unsigned = Certificate(
        facts=facts,
        orders=orders,
        software=dict(software),
        public_key=signer.public_key.hex(),
        signature="0" * 128,
    )
    return unsigned.model_copy(update={"signature": signer.sign(_signed_bytes(unsigned)).hex()})


def verify_certificate(text: str, public_key: bytes | None = None) -> Certificate:
    """The certificate in `text` (JSON), if it is genuine; else VerificationFailed.

    `public_key`: PEM that the verifier trusts. None proves only that the text was not changed since
    whoever owns the key it carries signed it.
    """
    certificate = parse_certificate(text)
    name = f"the certificate of deletion {certificate.facts.request_id}"
    key = bytes.fromhex(certificate.public_key)
    if public_key is not None and raw_public_key(public_key) != key:
        raise VerificationFailed(
            f"{name} is signed by another key (fingerprint {certificate.fingerprint})",
            "get the certificate from the run itself, or the public key of the run that issued it",
        )
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(certificate.signature), _signed_bytes(certificate))
    except InvalidSignature as error:
        raise VerificationFailed(
            f"{name} does not carry a valid signature: it was changed or forged", "get it again from the run's ledger"
        ) from error
    return certificate


def verify_chain(
    texts: Sequence[str],
    public_key: bytes | None = None,
    head: ChainHead | None = None,
    after: ChainHead | None = None,
) -> tuple[Certificate, ...]:
    """All certificates of a run, oldest first, if the chain is whole; else VerificationFailed.

    Without `head` a chain that lacks its newest certificates looks whole: ask the run for it. Without
    `public_key` all must at least be of one key. `after`: the end of the part that came before these.
    """
    certificates: list[Certificate] = []
    expected = after or ChainHead()
    for text in texts:
        certificate = verify_certificate(text, public_key)
        facts = certificate.facts
        if facts.sequence != expected.sequence + 1 or facts.previous != expected.hash:
            raise VerificationFailed(
                f"the chain breaks: certificate {facts.sequence} does not follow certificate {expected.sequence}",
                "one is missing, swapped or replaced: get the chain again from the run's ledger",
            )
        if certificates and certificate.public_key != certificates[0].public_key:
            raise VerificationFailed(
                f"certificate {facts.sequence} is of another key than those before it",
                "verify with the run's public key: a chain has one key",
            )
        expected = ChainHead(sequence=facts.sequence, hash=certificate.hash)
        certificates.append(certificate)
    if head is not None and head != expected:
        raise VerificationFailed(
            f"the chain ends at certificate {expected.sequence}, the run's ends at {head.sequence}",
            "get the missing certificates from the run's ledger",
        )
    return tuple(certificates)


def parse_certificate(text: str) -> Certificate:
    """The certificate in `text`, its signature unchecked. VerificationFailed: it is none, or of another version."""
    try:
        # Through JSON mode: strict, but lists become tuples.
        certificate = Certificate.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(text, error) from error
    if certificate.to_json() != text.strip():
        # Or the text could say one thing (a key twice) and the signed value another.
        raise VerificationFailed(
            "the certificate is not in canonical JSON: its text was changed", "give the JSON exactly as it was issued"
        )
    return certificate


def _unreadable(text: str, error: ValidationError) -> VerificationFailed:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole text"
    told = _claims(text).get("format")
    if not isinstance(told, str) or not told.startswith(_FAMILY):
        return VerificationFailed(
            f"this is not a certificate: {place}: {first['msg']}", "give the JSON exactly as it was issued"
        )
    return VerificationFailed(
        f"this certificate says that it is of format {told!r}, and is not what this s3t_ray reads as {FORMAT!r}: "
        f"{place}: {first['msg']}",
        "if it was not changed, another version of s3t_ray issued it: verify it with that one (see its `software`)",
    )


def claimed_key(text: str) -> str | None:
    """The public key (hex) that a certificate of whatever version says it is signed with; None: it says none."""
    key = _claims(text).get("public_key")
    return key if isinstance(key, str) else None


def _claims(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _signed_bytes(certificate: Certificate) -> bytes:
    return _DOMAIN + _canonical(certificate.model_dump(mode="json", exclude={"signature"})).encode()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def raw_public_key(pem: bytes) -> bytes:
    """The 32 bytes of an Ed25519 key in PEM. VerificationFailed: it is none."""
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise VerificationFailed("the public key is not PEM", "give the run's public.pem") from error
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationFailed("the public key is not an Ed25519 key", "give the run's public.pem")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
