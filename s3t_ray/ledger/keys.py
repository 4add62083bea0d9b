"""The secrets of a run: keyed hashes of ids and contents, and the signature of certificates.

In: a folder outside the run's storage. Out: 32-byte HMACs, digests, signatures. One file has the 32-byte master secret
(mode 0600, created once, never rewritten). All keys that hide something are derived from it with HKDF-SHA256. Another
file has the Ed25519 signing key, or names the token that has it (`signing_key.py`); it can be replaced (`s3t
rotate-key`). `public.pem` beside them is a copy of its public half for auditors.

Ids and subjects are hashed as given, as UTF-8 without Unicode normalization: equal bytes are the same id, and composed
and decomposed "é" differ. Only someone with the secret can test whether an id was in the run, so the secret never
appears in storage, ledger, logs or messages.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import struct
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from s3t_ray.config.location import MASTER_FILE
from s3t_ray.errors import DataError, LedgerError, VerificationFailed
from s3t_ray.ledger.signers.signing_key import NEXT_FILE, SIGNING_FILE, FileSigner, load_signer, settle_next
from s3t_ray.proof.signed_entry import Signer, pem_of

KEY_BYTES = 32
ROW_SEAL_BYTES = 16
_SHA256_BLOCK = 64
_NONCE_BYTES = 12
_PLACE = struct.Struct("<ii")
PUBLIC_FILE = "public.pem"


class LedgerKeys(Protocol):
    """The part of the run's keys that the ledger needs: to seal rows, and to sign the entries of its log."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...

    def row_seal(self, identity: bytes, subject: bytes | None, shard: int, index: int) -> bytes: ...

    def run_seal(self, said: str) -> bytes: ...

    def purge_seal(self, deletion: int, shard: int, index: int, identities: Iterable[bytes]) -> bytes: ...

    def sketch_seal(self, identity: bytes, signature: bytes) -> bytes: ...

    def hide(self, text: str, about: str) -> bytes: ...

    def reveal(self, hidden: bytes, about: str) -> str: ...


class Keys:
    """All keys of one run. Create it with `load_or_create` or `load`."""

    def __init__(self, master: bytes, signer: Signer | None = None) -> None:
        """`signer`: the signing key; None: derive it from the master secret, as in older runs."""
        if len(master) != KEY_BYTES:
            raise LedgerError(
                f"the master key has {len(master)} bytes, not {KEY_BYTES}", "restore the key file from its backup"
            )
        self._id = _derive(master, "id")
        self._subject = _derive(master, "subject")
        self._content = _derive(master, "content")
        self._record = _derive(master, "record")
        self._shingle = _derive(master, "shingle")
        self._row = _derive(master, "row")
        self._row_state = hashlib.blake2b(key=self._row, digest_size=ROW_SEAL_BYTES)
        self._sketch_state = hashlib.blake2b(key=_derive(master, "sketch"), digest_size=ROW_SEAL_BYTES)
        self._seal = _derive(master, "seal")
        self._nonce = _derive(master, "nonce")
        self._signer: Signer = signer or FileSigner(_derive(master, "sign"))
        self.place_key = _derive(master, "place")
        """32-byte key of the partition (`data.partition.place`)."""
        self._hiding = ChaCha20Poly1305(_derive(master, "hide"))
        self.key_check = hmac.digest(_derive(master, "check"), b"s3t", "sha256").hex()[:16]
        """Distinguishes these keys from others without revealing them; stored in the ledger."""

    @staticmethod
    def exist(folder: Path) -> bool:
        """Whether `folder` has keys; they may still be damaged."""
        return (folder / MASTER_FILE).exists()

    @classmethod
    def load_or_create(cls, folder: Path) -> Keys:
        """The keys in `folder`, created if it has none yet. Never overwrites a key."""
        master = folder / MASTER_FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not cls.exist(folder):
                # First, because a master secret alone means that the signing key is derived from it.
                write_once(folder / SIGNING_FILE, secrets.token_bytes(KEY_BYTES), 0o600)
                write_once(master, secrets.token_bytes(KEY_BYTES), 0o600)
            keys = cls.load(folder)
            public = folder / PUBLIC_FILE
            if not public.exists():
                write_once(public, keys.public_key_pem, 0o600)
        except OSError as error:
            raise LedgerError(
                f"keys cannot be made in {folder}: {error.strerror}",
                "set keys.dir to a folder on a local disk with free space that this user can write to",
            ) from error
        return keys

    @classmethod
    def load(cls, folder: Path, signs: str | None = None) -> Keys:
        """The keys in `folder`. LedgerError: lost, damaged, or readable by others.

        `signs`: the signing public key (hex) according to the run's log, if the folder may also have the next one.
        """
        path = folder / MASTER_FILE
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            master = path.read_bytes()
        except FileNotFoundError as error:
            raise LedgerError(
                f"the run's keys are lost: there is no {path}",
                "point keys.dir at them or restore them from a backup; without them ids can no longer be matched, so "
                "no deletion can be accepted, while certificates still verify with the public key that each carries",
            ) from error
        except OSError as error:
            raise LedgerError(
                f"the key file {path} cannot be read: {error.strerror}", "make it readable by this user only"
            ) from error
        if mode & 0o077:
            raise LedgerError(
                f"the key file {path} has mode {mode:04o}: other users can read it",
                f"chmod 600 {path}; if other users may have read it, treat the ids of this run as known to them",
            )
        following = load_signer(folder / NEXT_FILE)
        if following is not None and following.public_key.hex() == signs:
            return cls(master, following)
        return cls(master, load_signer(folder / SIGNING_FILE))

    def settle(self, folder: Path) -> None:
        """Finish an interrupted change of key: `signing.key` becomes the signing key, `public.pem` its public half."""
        following = load_signer(folder / NEXT_FILE)
        if following is not None and following.public_key == self.public_key:
            with suppress(OSError):  # leave a read-only folder unchanged: the log determines the key
                replace_file(folder / PUBLIC_FILE, self.public_key_pem, 0o600)
                settle_next(folder)

    def follow(self, signer: Signer) -> None:
        """Sign with this key from now on; the run's log already names it."""
        self._signer = signer

    def id_hmac(self, record_id: str) -> bytes:
        """32-byte HMAC of a record's id."""
        return _hmac(self._id, record_id)

    def id_hmacs(self, record_ids: Sequence[str]) -> list[bytes]:
        """`id_hmac` for many ids, which takes a significant part of a large deletion.

        Computes HMAC as in RFC 2104 from the two hashes of the padded key, which are the same for every id. This takes
        half the time of one library call per id.
        """
        block = self._id.ljust(_SHA256_BLOCK, b"\0")
        inner, outer = hashlib.sha256(block.translate(hmac.trans_36)), hashlib.sha256(block.translate(hmac.trans_5C))
        found = []
        for name in record_ids:
            first, second = inner.copy(), outer.copy()
            try:
                first.update(name.encode())
            except UnicodeEncodeError:
                _utf8(name)  # raises, naming the id and the reason
            second.update(first.digest())
            found.append(second.digest())
        return found

    def subject_hmac(self, subject: str) -> bytes:
        """32-byte HMAC of a person."""
        return _hmac(self._subject, subject)

    def content_hmac(self, content: str) -> bytes:
        """32-byte HMAC of a content (canonical JSON), independent of the record."""
        return _hmac(self._content, content)

    def shingle_hash(self, shingle: bytes) -> int:
        """A 32-bit keyed hash of consecutive words, for the sketches of records."""
        return int.from_bytes(hashlib.blake2b(shingle, key=self._shingle, digest_size=4).digest(), "big")

    def record_digest(self, record_id: str, content: str) -> bytes:
        """32-byte keyed digest of id and content, from which slice digests are computed."""
        name = _utf8(record_id)
        return hmac.digest(self._record, len(name).to_bytes(8, "big") + name + _utf8(content), "sha256")

    def row_seal(self, identity: bytes, subject: bytes | None, shard: int, index: int) -> bytes:
        """16-byte MAC that binds a record's id HMAC to its subject HMAC (None: no subject) and its place."""
        said = identity + (b"\0" if subject is None else b"\1" + subject) + _PLACE.pack(shard, index)
        state = self._row_state.copy()  # takes half the time of creating a keyed state
        state.update(said)
        return state.digest()

    def run_seal(self, said: str) -> bytes:
        """32-byte MAC of the ledger's row of its run."""
        return _hmac(self._row, f"run\n{said}")

    def purge_seal(self, deletion: int, shard: int, index: int, identities: Iterable[bytes]) -> bytes:
        """32-byte MAC of the records (id HMACs, in any order) that a deletion removed from a slice."""
        members = hashlib.sha256(b"".join(sorted(identities))).hexdigest()
        return _hmac(self._row, f"purged\n{deletion} {shard} {index} {members}")

    def sketch_seal(self, identity: bytes, signature: bytes) -> bytes:
        """16 bytes that fix the sketch of the record with this id HMAC."""
        state = self._sketch_state.copy()
        state.update(identity + signature)
        return state.digest()

    def hide(self, text: str, about: str) -> bytes:
        """Encrypt `text`; also authenticates `about`, which is stored elsewhere in clear text."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._hiding.encrypt(nonce, text.encode(), about.encode())

    def reveal(self, hidden: bytes, about: str) -> str:
        """Decrypt what `hide` returned. VerificationFailed: other keys encrypted it, or `about` differs."""
        try:
            return self._hiding.decrypt(hidden[:_NONCE_BYTES], hidden[_NONCE_BYTES:], about.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise VerificationFailed("this was not encrypted with the run's keys", "see `s3t audit`") from error

    def seal_key(self, *purpose: str) -> str:
        """A key, in hex, for one job or one slice of data. Its owner can seal and check only that one thing."""
        return _hmac(self._seal, json.dumps(purpose)).hex()

    def nonce(self, named: str) -> str:
        """The nonce, in hex, of a commitment to names; the same for every repeat of a request."""
        return _hmac(self._nonce, named).hex()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._signer.sign(message)

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""
        return self._signer.public_key

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, in hex, for comparison by eye or phone."""
        return hashlib.sha256(self.public_key).hexdigest()

    @property
    def public_key_pem(self) -> bytes:
        """The public key for auditors."""
        return pem_of(self.public_key)

    def __repr__(self) -> str:
        return f"Keys(key_check={self.key_check!r})"


def _derive(master: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"s3t/keys/1/{purpose}".encode()).derive(master)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, _utf8(text), "sha256")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"a text of {len(text)} characters is not Unicode: half a surrogate pair at position {error.start}",
            "correct the record's source: it was truncated or encoded incorrectly",
        ) from error


def write_once(path: Path, data: bytes, mode: int) -> None:
    """Write a file atomically and durably, without replacing an existing one."""
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: if two processes start a run at the same time, the first wins.
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
    _sync(path.parent)


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Replace a file atomically: after a crash it is either the old or the new one."""
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
