"""An entry of a run's log: facts, signed with Ed25519, that name the hash of the entry before them.

In: facts and a signer. Out: a frozen value with one canonical JSON form. The modules of the kinds define their facts
(`receipt.py`, `certificate.py`, `run_entry.py`); `run_log.py` reads all of them. Every kind has its own `format`, which
also separates the domains of the signatures. Never change a released format: a new one gets a new number, and the old
one stays readable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from s3t_ray.errors import VerificationFailed

FIRST = "0" * 64
"""`previous` of the first entry of a log."""
_UNSIGNED = "0" * 128

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Value(BaseModel):
    """Base of all signed values: frozen, strict, without extra fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ChainHead(Value):
    """A position in the log: the number and hash of an entry."""

    sequence: Count = 0
    hash: Digest = FIRST


class EntryFacts(Value):
    """Facts in every entry: its position in the log, and the name of the run."""

    sequence: PositiveInt
    previous: Digest
    run: str


class RunFacts(EntryFacts):
    """Facts in every entry, except those of versions without run ids."""

    run_id: RunId


class SignedEntry(Value):
    """Signed facts. Kinds narrow `format` and `facts` to their own."""

    format: str
    facts: EntryFacts
    public_key: Digest  # raw Ed25519, hex
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, in hex, for comparison by eye or phone."""
        return hashlib.sha256(bytes.fromhex(self.public_key)).hexdigest()

    @property
    def hash(self) -> str:
        """Hash of the entry, which the next entry names as `previous`."""
        return hash_of(self.to_json())

    def to_json(self) -> str:
        """The canonical form: sorted keys, no spaces."""
        return canonical(self.model_dump(mode="json"))

    def signed_bytes(self) -> bytes:
        """The bytes that the signature covers."""
        unsigned = self.model_dump(mode="json", exclude={"signature"})
        return f"{self.format}\n{canonical(unsigned)}".encode()


@dataclass(frozen=True)
class LogKeys:
    """The keys of a log, by public key (hex), with the numbers of the first and last entry that each signed."""

    spans: Mapping[str, tuple[int, int | None]]  # None: it still signs

    def cover(self, key: str, sequence: int) -> bool:
        """Whether this key may have signed the log's entry with this number."""
        first, last = self.spans.get(key, (1, 0))
        return first <= sequence and (last is None or sequence <= last)


class Signer(Protocol):
    """The part of `Keys` that signs."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


EntryT = TypeVar("EntryT", bound=SignedEntry)


def signed(kind: type[EntryT], signer: Signer, **fields: Any) -> EntryT:
    """An entry of this kind with these fields, signed."""
    unsigned = kind(**fields, public_key=signer.public_key.hex(), signature=_UNSIGNED)
    return unsigned.model_copy(update={"signature": signer.sign(unsigned.signed_bytes()).hex()})


def check_signature(entry: SignedEntry, name: str, public_key: bytes | LogKeys | None) -> None:
    """VerificationFailed unless the entry is unchanged since its key signed it.

    `name`: its name in messages. `public_key`: PEM that the verifier trusts, or all keys of the log
    (`key_entry.keys_of`); None proves only that the entry is unchanged since the owner of the key in it signed it.
    """
    key = bytes.fromhex(entry.public_key)
    if isinstance(public_key, bytes):
        public_key = LogKeys({raw_public_key(public_key).hex(): (1, None)})
    if public_key is not None and not public_key.cover(entry.public_key, entry.facts.sequence):
        if (span := public_key.spans.get(entry.public_key)) is not None:
            first, last = span
            raise VerificationFailed(
                f"{name} is entry {entry.facts.sequence}, but its key signs only the run's entries "
                + (f"from {first} on" if last is None else f"{first} to {last}"),
                "it was signed with a stolen key, or is from a history that was lost when the run was restored from a "
                "backup: keep it, and run `s3t audit`",
            )
        raise VerificationFailed(
            f"{name} is signed by another key (fingerprint {entry.fingerprint})",
            "get it from the run itself, or get the public key of the run that issued it",
        )
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(entry.signature), entry.signed_bytes())
    except InvalidSignature as error:
        raise VerificationFailed(
            f"{name} does not have a valid signature: it was changed or forged", "get it again from the run's ledger"
        ) from error


def hash_of(text: str) -> str:
    """The hash of an entry with this canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: the same text from the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def raw_public_key(pem: bytes) -> bytes:
    """The 32 bytes of an Ed25519 key in PEM. VerificationFailed: it is not one."""
    try:
        key: object = load_pem_public_key(pem)
    except UnsupportedAlgorithm:
        key = None  # a kind that the library does not support
    except ValueError as error:
        raise VerificationFailed("the public key is not PEM", "give the run's public.pem") from error
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationFailed("the public key is not an Ed25519 key", "give the run's public.pem")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def pem_of(public_key: bytes) -> bytes:
    """An Ed25519 key of 32 raw bytes as PEM."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
