"""Who is notified of deletions: the receivers that the operator lists in a file.

In: the YAML file that S3T_CALLBACKS_FILE names. Out: `Receiver`s. Only the operator says where messages go; no request
over HTTP can name an address. Must never log or print a secret.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from s3t_ray.errors import ConfigError

CALLBACKS_FILE = "S3T_CALLBACKS_FILE"
SHORTEST_SECRET = 24
"""Minimum bytes, as in Standard Webhooks."""
_PREFIX = "whsec_"

State = Literal["accepted", "pruned", "purged", "restored"]


class Receiver(BaseModel):
    """One receiver."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Unique name under which the ledger stores its position; keep it when the address changes."""
    url: Annotated[str, Field(max_length=2000)]
    """Where messages are posted: https, or http for a private receiver."""
    secrets: Annotated[tuple[str, ...], Field(min_length=1, max_length=3, repr=False)]
    """Shared secrets in base64, with or without the prefix `whsec_`. All of them sign, so they can be rotated."""
    states: Annotated[tuple[State, ...], Field(min_length=1)] = ("accepted", "pruned", "purged", "restored")
    private: bool = False
    """Whether it may be on a private network or on this machine."""

    @field_validator("secrets")
    @classmethod
    def _long_enough(cls, told: tuple[str, ...]) -> tuple[str, ...]:
        for each in told:
            try:
                key = base64.b64decode(each.removeprefix(_PREFIX), validate=True)
            except binascii.Error:
                key = b""
            if len(key) < SHORTEST_SECRET:
                raise ValueError(
                    f"a secret must be base64 of {SHORTEST_SECRET} bytes or more: `openssl rand -base64 32`"
                )
        return told

    @field_validator("url")
    @classmethod
    def _an_address(cls, told: str) -> str:
        parts = urlsplit(told)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
            raise ValueError("an address must be https://host/path, without a user or password")
        _ = parts.port  # raises ValueError
        return told

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The secrets as bytes."""
        return tuple(base64.b64decode(each.removeprefix(_PREFIX)) for each in self.secrets)


class ReceiverFile(BaseModel):
    """The YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    receivers: tuple[Receiver, ...]


def receivers_from_environment(environment: Mapping[str, str] | None = None) -> tuple[Receiver, ...]:
    """The receivers in the file that S3T_CALLBACKS_FILE names; none if it is not set. ConfigError."""
    path = (os.environ if environment is None else environment).get(CALLBACKS_FILE)
    return read_receivers(Path(path)) if path else ()


def read_receivers(path: Path) -> tuple[Receiver, ...]:
    """Read the file. ConfigError: it cannot be read, or is not a list of receivers."""
    fix = "list receivers, each with name, url and secrets (docs/cluster.md)"
    try:
        found = ReceiverFile.model_validate(yaml.safe_load(path.read_text())).receivers
    except ValidationError as error:
        first = error.errors()[0]  # do not repeat its input in the message: it may be a secret
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path} is not a list of receivers: {where}: {first['msg']}", fix) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as a list of receivers ({type(error).__name__})", fix) from None
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path} names a receiver twice", "give each its own name")
    for each in found:
        if not each.private and urlsplit(each.url).scheme != "https":
            raise ConfigError(
                f"{path}: the receiver {each.name!r} has no https address", "use https, or set private: true"
            )
    return found
