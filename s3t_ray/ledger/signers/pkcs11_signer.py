"""A signing key on a PKCS#11 token (a smart card, an HSM, SoftHSM): it never leaves the token.

In: a URI (`pkcs11_uri.py`), and the PIN from S3T_PKCS11_PIN or the file that the URI names. Out: Ed25519 signatures,
each checked before use, because a log cannot retract what it signed. The token is opened at the first signature, so
reading a run does not need it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from s3t_ray.errors import ConfigError, LedgerError
from s3t_ray.ledger.signers.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from pkcs11 import Session

PIN_VARIABLE = "S3T_PKCS11_PIN"
_RAW_BYTES = 32
_OCTET_STRING = b"\x04\x20"  # DER, of 32 bytes


class Pkcs11Signer:
    """Thread-safe; open one per process, because a fork loses a token's sessions."""

    def __init__(self, uri: Pkcs11Uri, public_key: bytes) -> None:
        self.uri = uri
        self.public_key = public_key
        """Raw public key, 32 bytes."""
        self._lock = threading.Lock()
        self._private: Any = None  # the signing object of python-pkcs11, whose types do not declare `sign`

    @classmethod
    def on_token(cls, uri: Pkcs11Uri) -> Pkcs11Signer:
        """The key named by the URI, after a test signature. ConfigError, LedgerError: it is missing or cannot sign."""
        _, public_key = _found(uri)
        signer = cls(uri, public_key)
        signer.sign(b"s3t/trial/1\n")
        return signer

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes. LedgerError: the token does not return a valid one."""
        with self._lock:
            signature = self._signed(message)
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except InvalidSignature as error:
            raise LedgerError(
                f"the token of {self.uri.text} gives signatures that are not of its key: nothing was signed",
                "check that it signs with plain Ed25519 (CKM_EDDSA), and that the token is sound",
            ) from error
        return signature

    def _signed(self, message: bytes) -> bytes:
        """Sign in the open session. Reopens it once if a restarted token has closed it."""
        from pkcs11 import Mechanism, PKCS11Error

        for was_open in (True, False) if self._private is not None else (False,):
            try:
                signature: bytes = self._key().sign(message, mechanism=Mechanism.EDDSA)
                return signature
            except PKCS11Error as error:
                self._private = None
                if not was_open:  # no retry: each attempt may count against the PIN limit
                    raise _silent(self.uri, error) from error
        raise AssertionError("unreachable")

    def _key(self) -> Any:
        if self._private is None:
            private, public_key = _found(self.uri)
            if public_key != self.public_key:
                raise LedgerError(
                    f"the key of {self.uri.text} is another one than when the run's log went over to it",
                    "put the token of then in, or restore its key",
                )
            self._private = private
        return self._private


def _found(uri: Pkcs11Uri) -> tuple[Any, bytes]:
    """The private key, and the raw public one. LedgerError: the token, or the key on it, is missing."""
    from pkcs11 import Attribute, KeyType, ObjectClass, PKCS11Error

    try:
        session = _session(uri)
        private, public = (
            session.get_key(object_class=half, key_type=KeyType.EC_EDWARDS, label=uri.label, id=uri.id)
            for half in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        )
        point = bytes(public[Attribute.EC_POINT])
    except PKCS11Error as error:
        raise _silent(uri, error) from error
    raw = point.removeprefix(_OCTET_STRING)
    if len(raw) != _RAW_BYTES:
        raise LedgerError(
            f"the key of {uri.text} is not an Ed25519 key: its point has {len(point)} bytes",
            "make one: pkcs11-tool --module PATH --login --keypairgen --key-type EC:edwards25519 --label sign",
        )
    return private, raw


def _session(uri: Pkcs11Uri) -> Session:
    try:
        from pkcs11 import UserAlreadyLoggedIn, lib
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a key on a PKCS#11 token needs the package python-pkcs11, which is not installed",
            "pip install 's3t-ray[pkcs11]'",
        ) from error
    token = lib(uri.module).get_token(token_label=uri.token, token_serial=_serial(uri))
    try:
        return token.open(user_pin=_pin(uri))
    except UserAlreadyLoggedIn:  # another session of this process: logins are per process
        return token.open()


def _serial(uri: Pkcs11Uri) -> bytes | None:
    return None if uri.serial is None else uri.serial.encode()


def _pin(uri: Pkcs11Uri) -> str:
    """The PIN from the variable or the file. ConfigError: neither is set."""
    pin = os.environ.get(PIN_VARIABLE)
    if not pin and uri.pin_source is not None:
        try:
            pin = uri.pin_source.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the PIN in {uri.pin_source} cannot be read: {error}", "make the file readable by this user only"
            ) from error
    if not pin:
        raise ConfigError(
            f"the token of {uri.text} asks for a PIN", f"set {PIN_VARIABLE}, or name a file with pin-source=file:/path"
        )
    return pin


def _silent(uri: Pkcs11Uri, error: Exception) -> LedgerError:
    why = f"{type(error).__name__} {error}".strip()
    return LedgerError(
        f"the token of {uri.text} does not sign: {why}",
        "check that the token is there, the PIN, and that it holds an Ed25519 key pair of that name",
    )
