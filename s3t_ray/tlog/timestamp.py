"""Timestamps of checkpoints by a third-party authority (RFC 3161): the log had this length at that time, or earlier.

In: a checkpoint's text, a reply from a timestamp server, the authority's root certificates. Out: requests, and the time
in a genuine reply. Pure. Needs the extra `timestamps` (rfc3161-client), which is imported on use.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from types import ModuleType

from cryptography.x509 import Certificate, load_pem_x509_certificates

from s3t_ray.errors import ConfigError, VerificationFailed

REQUEST_TYPE = "application/timestamp-query"


def request_for(text: str) -> bytes:
    """The request (DER) to POST to a timestamp server: for the SHA-512 of this text, asking for its certificates."""
    client = _client()
    return bytes(
        client.TimestampRequestBuilder().data(text.encode()).cert_request(cert_request=True).build().as_bytes()
    )


def stamped_at(reply: bytes, text: str, roots: bytes) -> datetime:
    """The time at which the text existed, according to an authority whose root certificate is in `roots` (PEM).

    Raises VerificationFailed if the reply is not genuine, or not for this text, or not from such an authority.
    """
    client = _client()
    builder = client.VerifierBuilder()
    for certificate in _certificates(roots):
        builder = builder.add_root_certificate(certificate)
    try:
        answer = client.decode_timestamp_response(reply)
        builder.build().verify_message(answer, text.encode())
        found: datetime = answer.tst_info.gen_time
        return found.astimezone(UTC)
    except (client.VerificationError, ValueError) as error:
        raise VerificationFailed(
            f"the timestamp is not for this checkpoint: {error}",
            "use the reply that came with this checkpoint, and the root certificate of its authority",
        ) from error


def granted(reply: bytes, text: str) -> bool:
    """Whether the server granted a timestamp for this text. Does not check its certificates."""
    client = _client()
    try:
        answer = client.decode_timestamp_response(reply)
        digest = hashlib.sha512(text.encode()).digest()
        return bool(answer.status == client.PKIStatus.GRANTED and answer.tst_info.message_imprint.message == digest)
    except ValueError:
        return False


def claimed_time(reply: bytes) -> datetime | None:
    """The time stated in a reply, without checking who issued it; None if it cannot be read."""
    client = _client()
    try:
        found: datetime = client.decode_timestamp_response(reply).tst_info.gen_time
        return found.astimezone(UTC)
    except ValueError:
        return None


def _certificates(roots: bytes) -> list[Certificate]:
    try:
        return list(dict.fromkeys(load_pem_x509_certificates(roots)))
    except ValueError as error:
        raise VerificationFailed(
            "the timestamp authority's root certificates are not PEM", "use them as the authority publishes them"
        ) from error


def _client() -> ModuleType:
    try:
        import rfc3161_client
    except ModuleNotFoundError as error:
        raise ConfigError(
            "timestamps need the package rfc3161-client, which is not installed",
            "pip install 's3t-ray[timestamps]', or remove log.timestamps from the config",
        ) from error
    return rfc3161_client
