"""Signed envelopes in the DSSE format (github.com/secure-systems-lab/dsse, version 1), used by in-toto attestations.

In: a statement and a signer. Out: one JSON text that other tools can read. Pure. The signature covers the payload's
type and bytes, so checking needs no canonical JSON.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import Signer, canonical

IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
MOST_CHARACTERS = 64 * 2**20


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)  # as the format requires


class EnvelopeSignature(_Part):
    sig: str
    keyid: str = ""  # an unsigned hint


class Envelope(_Part):
    """The envelope in its written form."""

    payloadType: str
    payload: str
    signatures: list[EnvelopeSignature]


def is_envelope(text: str) -> bool:
    """Whether this looks like an envelope rather than an entry of a log."""
    if '"payloadType"' not in text:
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "payloadType" in found


def enveloped(statement: object, signer: Signer) -> str:
    """The envelope of an in-toto statement, one line. Its key id is the SHA-256 of the raw public key, in hex."""
    payload = canonical(statement).encode()
    signature = base64.b64encode(signer.sign(_signed_bytes(IN_TOTO, payload))).decode()
    key_id = hashlib.sha256(signer.public_key).hexdigest()
    return canonical(
        {
            "payloadType": IN_TOTO,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": key_id, "sig": signature}],
        }
    )


def peeked(text: str) -> dict[str, object]:
    """The in-toto statement in an envelope, unverified, to find out which key it needs. VerificationFailed."""
    return _statement(_parsed(text))


def opened(text: str, public_keys: Sequence[bytes]) -> dict[str, object]:
    """The in-toto statement in an envelope that one of these keys (32 raw bytes each) signed. VerificationFailed."""
    envelope = _parsed(text)
    message = _signed_bytes(envelope.payloadType, _decoded(envelope.payload))
    keys = [Ed25519PublicKey.from_public_bytes(key) for key in public_keys]
    if not any(_signs(key, _decoded(each.sig), message) for key in keys for each in envelope.signatures):
        raise VerificationFailed(
            "the envelope has no valid signature by this key: it was changed, forged, or signed with another key",
            "get it again from its issuer, and the public key from a source that you trust",
        )
    return _statement(envelope)


def _parsed(text: str) -> Envelope:
    if len(text) > MOST_CHARACTERS:
        raise _malformed(f"it has {len(text)} characters")
    try:
        return Envelope.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise _malformed(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


def _statement(envelope: Envelope) -> dict[str, object]:
    if envelope.payloadType != IN_TOTO:
        raise _malformed(f"its payload is of type {envelope.payloadType[:80]!r}, not {IN_TOTO}")
    try:
        statement = json.loads(_decoded(envelope.payload))
    except (ValueError, RecursionError) as error:
        raise _malformed("its payload is not JSON") from error
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT:
        raise _malformed("its payload is not an in-toto statement of version 1")
    return statement


def _signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """PAE, the pre-authentication encoding of the format."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _signs(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    """Base64 in either alphabet: the format allows both."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("a part of it is not base64") from error


def _malformed(why: str) -> VerificationFailed:
    return VerificationFailed(f"this is not a DSSE envelope of a statement: {why}", "give the file as it was written")
