"""Access control by bearer tokens, compared in constant time.

Two tokens come from the environment: S3T_SERVE_TOKEN for the model, S3T_DELETE_TOKEN for deletions; neither gives
access to the other. More come from the file in S3T_TOKENS_FILE, each with a name, what it gives access to, and a quota.
The file is read again when it changes, so tokens can be added, removed and rotated without a restart. A service does
not start unless it has both kinds. It must never log, print or store a token, or reveal which part of one is wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from s3t_ray.errors import ConfigError

SERVE_TOKEN = "S3T_SERVE_TOKEN"
DELETE_TOKEN = "S3T_DELETE_TOKEN"
TOKENS_FILE = "S3T_TOKENS_FILE"
SHORTEST = 16
"""Minimum characters; a shorter token can be guessed."""
KINDS = frozenset(("model", "deletions"))
"""What a token gives access to."""
LOOK_SECONDS = 2.0
"""Seconds between checks of the file."""

_log = logging.getLogger(__name__)


class TokenEntry(BaseModel):
    """One token in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """Unique name of the holder, for the operator."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the token, as printed by `printf %s "$TOKEN" | sha256sum`, so the file contains no token."""
    opens: Literal["model", "deletions"]
    requests_per_minute: PositiveInt | None = None
    """Quota per HTTP process. None: unlimited."""


class TokenFile(BaseModel):
    """The YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[TokenEntry, ...]


@dataclass(frozen=True)
class Holder:
    """The holder of a token."""

    name: str
    digest: bytes = field(repr=False)
    opens: frozenset[str]
    """Of `KINDS`."""
    requests_per_minute: int | None = None


class Tokens:
    """Digests of the tokens. All have the same length, so that timing does not even reveal a token's length."""

    def __init__(
        self, holders: Sequence[Holder], file: Path | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed = tuple(holders)
        self._file = file
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # by name: remaining requests, and the time of that count
        self._looked = now()
        self._stamp: tuple[int, int] | None = None
        self._listed: tuple[Holder, ...] = ()
        if file is not None:
            self._stamp, self._listed = _stamp_of(file), _read(file)
            _check_names((*self._fixed, *self._listed))
        for kind, name in (("model", SERVE_TOKEN), ("deletions", DELETE_TOKEN)):
            if not any(kind in holder.opens for holder in (*self._fixed, *self._listed)):
                raise ConfigError(
                    f"{name} is not set, and no token gives access to "
                    f"{'the model' if kind == 'model' else 'deletions'}: the service does not start without one",
                    f"set it in the environment of every node, for example {name}=$(openssl rand -hex 32), or list "
                    f"tokens in the file that {TOKENS_FILE} names",
                )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Tokens:
        """ConfigError: one kind is missing, a token is too short, or both are the same."""
        found = os.environ if environment is None else environment
        told = {name: found[name] for name in (SERVE_TOKEN, DELETE_TOKEN) if found.get(name)}
        for name, token in told.items():
            if len(token) < SHORTEST or not token.isascii() or any(char.isspace() for char in token):
                raise ConfigError(
                    f"{name} must be ASCII text of {SHORTEST} or more characters without spaces",
                    f"set it in the environment of every node, for example {name}=$(openssl rand -hex 32)",
                )
        if len(told) == 2 and told[SERVE_TOKEN] == told[DELETE_TOKEN]:
            raise ConfigError(
                f"{SERVE_TOKEN} and {DELETE_TOKEN} are the same, so every user of the model could delete",
                f"give {DELETE_TOKEN} its own value",
            )
        holders = []
        if SERVE_TOKEN in told:
            holders.append(Holder(SERVE_TOKEN, _digest(told[SERVE_TOKEN]), frozenset(("model",))))
        if DELETE_TOKEN in told:
            holders.append(Holder(DELETE_TOKEN, _digest(told[DELETE_TOKEN]), frozenset(("deletions",))))
        file = found.get(TOKENS_FILE)
        return cls(holders, Path(file) if file else None)

    def holder(self, authorization: str) -> Holder | None:
        """Holder of the token in the Authorization header; None for an unknown token."""
        scheme, _, token = authorization.partition(" ")
        digest = _digest(token.strip())
        # Always compare with all of them, so that timing reveals nothing.
        found = [holder for holder in self._holders() if hmac.compare_digest(digest, holder.digest)]
        return found[0] if found and scheme.lower() == "bearer" else None

    def opens_model(self, authorization: str) -> bool:
        """Whether the Authorization header gives access to the model."""
        holder = self.holder(authorization)
        return holder is not None and "model" in holder.opens

    def opens_deletions(self, authorization: str) -> bool:
        """Whether the Authorization header gives access to deletions."""
        holder = self.holder(authorization)
        return holder is not None and "deletions" in holder.opens

    def knows(self, holder: Holder) -> bool:
        """Whether the holder's token is still valid with the same rights."""
        return holder in self._holders()

    def spend(self, holder: Holder) -> float:
        """Count one request of `holder`. Returns 0, or the seconds until its quota allows the next one."""
        rate = holder.requests_per_minute
        if rate is None:
            return 0.0
        with self._lock:
            now = self._now()
            left, then = self._buckets.get(holder.name, (float(rate), now))
            left = min(float(rate), left + (now - then) * rate / 60)
            if left < 1:
                self._buckets[holder.name] = left, now
                return (1 - left) * 60 / rate
            self._buckets[holder.name] = left - 1, now
            return 0.0

    def _holders(self) -> tuple[Holder, ...]:
        if self._file is not None:
            with self._lock:
                if self._now() - self._looked >= LOOK_SECONDS:
                    self._looked = self._now()
                    self._look(self._file)
        return (*self._fixed, *self._listed)

    def _look(self, file: Path) -> None:
        """Read the file again if it has changed. An invalid file changes nothing: the known tokens remain valid."""
        try:
            stamp = _stamp_of(file)
            if stamp == self._stamp:
                return
            listed = _read(file)
            _check_names((*self._fixed, *listed))
        except ConfigError as error:
            _log.warning("the tokens stay as they were: %s", error.problem)
            return
        self._stamp, self._listed = stamp, listed


def _stamp_of(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise ConfigError(f"{TOKENS_FILE} names {file}, which cannot be read: {error}", "correct the path") from error
    return found.st_mtime_ns, found.st_ino


def _read(file: Path) -> tuple[Holder, ...]:
    try:
        entries = TokenFile.model_validate(yaml.safe_load(file.read_text())).tokens
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        # Do not repeat values in the message: one may be a token in the wrong place.
        where = _where(error)
        raise ConfigError(
            f"{file} is not a list of tokens{where}", "give each a name, its sha256 and opens: model or deletions"
        ) from None
    return tuple(
        Holder(entry.name, bytes.fromhex(entry.sha256), frozenset((entry.opens,)), entry.requests_per_minute)
        for entry in entries
    )


def _where(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f": {'.'.join(str(part) for part in first['loc'])}: {first['type']}"
    line = re.search(r"line \d+", str(error))
    return f": {line.group()}" if line else ""


def _check_names(holders: Sequence[Holder]) -> None:
    names = [holder.name for holder in holders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"the tokens' names are not unique: {', '.join(twice)}", "give each token its own name")
    if len({holder.digest for holder in holders}) < len(holders):
        raise ConfigError("two entries are the same token", "give each holder its own token")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
