"""PKCS#11 URIs (RFC 7512): which key, on which token, through which library, and where its PIN comes from.

Pure. `pkcs11:token=run;object=sign?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/s3t/pin`.
The library runs in the signing process, so a URI must come from the operator or the folder of keys, never from the
run's storage. A URI must not contain a PIN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from s3t_ray.errors import ConfigError

SCHEME = "pkcs11:"
_EXAMPLE = "pkcs11:token=run;object=sign?module-path=/usr/lib/softhsm/libsofthsm2.so"
_PATH = ("token", "serial", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
_PLAIN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Pkcs11Uri:
    """Location of a signing key."""

    text: str = field(compare=False)
    module: str  # path of the library
    token: str | None  # label
    serial: str | None
    label: str | None  # of the key pair
    id: bytes | None  # of the key pair
    pin_source: Path | None

    @classmethod
    def parse(cls, text: str) -> Pkcs11Uri:
        """Parse a URI. ConfigError: it is invalid, names no key or no library, or contains a PIN."""
        if not text.startswith(SCHEME) or not _PLAIN.fullmatch(text):
            raise _refused(f"{text[:80]!r} is not a PKCS#11 URI")
        path, _, query = text.removeprefix(SCHEME).partition("?")
        if "pin-value=" in query:
            raise ConfigError(  # does not repeat the value
                "a PKCS#11 URI with pin-value holds the PIN, and URIs are stored and shown",
                "give the PIN in S3T_PKCS11_PIN, or name a file with pin-source=file:/path",
            )
        at = _pairs(path, ";", _PATH)
        asked = _pairs(query, "&", _QUERY)
        if "type" in at and at["type"] != "private":
            raise _refused(f"type={at['type']} is not the private key that signs")
        if not {"token", "serial"} & at.keys() or not {"object", "id"} & at.keys():
            raise _refused("it must name a token (token or serial) and a key on it (object or id)")
        if not asked.get("module-path", "").startswith("/"):
            raise _refused("it must name the token's library by its whole path (module-path)")
        source = asked.get("pin-source")
        return cls(
            text,
            unquote(asked["module-path"]),
            _text(at, "token"),
            _text(at, "serial"),
            _text(at, "object"),
            unquote_to_bytes(at["id"]) if "id" in at else None,
            None if source is None else _file(source),
        )


def _pairs(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    """Attributes by name, still percent-encoded."""
    found: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name not in known or not equals or not value or name in found:
            raise _refused(f"{part[:40]!r} is not one of {', '.join(known)}, once, with a value")
        found[name] = value
    return found


def _text(attributes: dict[str, str], name: str) -> str | None:
    return unquote(attributes[name]) if name in attributes else None


def _file(source: str) -> Path:
    path = unquote(source.removeprefix("file://").removeprefix("file:"))
    if not path.startswith("/"):
        raise _refused(f"pin-source={source[:40]} is not a file, named by its whole path")
    return Path(path)


def _refused(why: str) -> ConfigError:
    return ConfigError(f"the signer cannot be used: {why}", f"give a URI such as {_EXAMPLE}")
