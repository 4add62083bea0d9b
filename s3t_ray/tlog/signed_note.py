"""Signed notes (c2sp.org/signed-note): a text with Ed25519 signatures, each by a named key.

In: texts and keys. Out: notes that anyone with the public keys can check offline. Pure. Signatures of unknown keys are
ignored, as the format requires. An invalid signature of a known key invalidates the note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from s3t_ray.errors import VerificationFailed

ED25519 = 0x01
COSIGNATURE = 0x04
"""The signature type of a timestamped cosignature (see `cosignature.py`)."""

MAX_NOTE_BYTES = 1_000_000
_NAME = re.compile(r"[^\s+\ud800-\udfff]+")
_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_DASH = "\u2014"


@dataclass(frozen=True)
class VerifierKey:
    """A public key with its name, exchanged as the text `name+id+key`. Raises ValueError for an invalid name."""

    name: str
    kind: int
    public: bytes  # 32 bytes, RFC 8032

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a key name must not contain spaces or plus signs: {self.name!r}")

    @property
    def id(self) -> bytes:
        """4 bytes that distinguish keys with the same name."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Parse `name+id+key`. Raises VerificationFailed if the text is not a key or its id does not match."""
        parts = text.strip().split("+", 2)
        material = _decoded(parts[2]) if len(parts) == 3 else None
        if material is None or len(material) != 33 or material[0] not in (ED25519, COSIGNATURE):
            raise VerificationFailed(
                f"not a verifier key: {text[:80]!r}",
                "use the form `name+id+key`, as the log's operator or `s3t witness init` prints it",
            )
        try:
            key = cls(parts[0], material[0], material[1:])
        except ValueError as error:
            raise VerificationFailed(f"not a verifier key: {error}", "copy the entire key again") from error
        if key.id.hex() != parts[1].lower():
            raise VerificationFailed(
                f"verifier key {parts[0]!r} was changed: its id is {key.id.hex()}, not {parts[1]}", "copy it again"
            )
        return key


@dataclass(frozen=True)
class NoteSignature:
    """One signature line."""

    name: str
    key_id: bytes  # 4 bytes
    value: bytes

    def line(self) -> str:
        return f"{_DASH} {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True)
class SignedNote:
    """A text that ends in a newline, and its signatures."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(signature.line() for signature in self.signatures)}"

    @classmethod
    def parse(cls, document: str) -> SignedNote:
        """Parse a signed note. Raises VerificationFailed for any other document."""
        text, separator, tail = document.rpartition("\n\n")
        lines = tail.split("\n")
        matches = [_LINE.fullmatch(line) for line in lines[:-1]]
        plain = all(ord(letter) >= 0x20 or letter == "\n" for letter in document)
        try:
            small = len(document.encode()) <= MAX_NOTE_BYTES
        except UnicodeEncodeError:  # half a surrogate pair, which has no UTF-8 encoding, so nobody signed it
            small = False
        if not separator or not text or lines[-1] or not matches or not plain or not small:
            raise _malformed("it is not a text, an empty line and signature lines")
        signatures = []
        for match in matches:
            value = _decoded(match[2]) if match else None
            if match is None or value is None or len(value) < 5:
                raise _malformed("a line after the text is not a signature")
            signatures.append(NoteSignature(match[1], value[:4], value[4:]))
        return cls(text + "\n", tuple(signatures))

    def with_signatures(self, more: Iterable[NoteSignature]) -> SignedNote:
        """The note with additional signatures, without duplicates."""
        return SignedNote(self.text, tuple(dict.fromkeys((*self.signatures, *more))))

    def signed_by(self, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
        """The keys among these (of type Ed25519) that signed the note.

        Raises VerificationFailed if a signature in the name of one of them is invalid.
        """
        known: Mapping[tuple[str, bytes], VerifierKey] = {(key.name, key.id): key for key in keys}
        found: dict[VerifierKey, None] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is None or key.kind != ED25519:
                continue
            check_ed25519(key, signature.value, self.text.encode())
            found[key] = None
        return tuple(found)


class NoteSigner:
    """Signs notes with a named Ed25519 key."""

    def __init__(self, name: str, public: bytes, sign: Callable[[bytes], bytes]) -> None:
        """`public`: the public key (32 bytes). `sign`: signs bytes with the corresponding private key."""
        self._sign = sign
        self.key = VerifierKey(name, ED25519, public)

    @classmethod
    def of(cls, name: str, private: Ed25519PrivateKey) -> NoteSigner:
        """A signer for an in-memory private key."""
        return cls(name, private.public_key().public_bytes_raw(), private.sign)

    def sign(self, text: str) -> SignedNote:
        """Sign `text`. Raises ValueError unless it ends in a newline."""
        if not text.endswith("\n"):
            raise ValueError("the text of a note ends in a newline")
        signature = NoteSignature(self.key.name, self.key.id, self._sign(text.encode()))
        return SignedNote(text, (signature,))


def check_ed25519(key: VerifierKey, signature: bytes, message: bytes) -> None:
    """Raise VerificationFailed unless `key` signed `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature as error:
        raise VerificationFailed(
            f"the signature in the name of {key.name} is not genuine",
            "the note was changed after it was signed: ask its sender for the original",
        ) from error


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _malformed(why: str) -> VerificationFailed:
    return VerificationFailed(f"not a signed note: {why}", "use the file exactly as you received it")
