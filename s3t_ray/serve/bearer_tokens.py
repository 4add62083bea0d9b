"""Who may ask what: two bearer tokens from the environment, compared in constant time.

S3T_SERVE_TOKEN opens the model, S3T_DELETE_TOKEN the deletions; neither opens the other. A service
without both does not start. Must never log, print or store a token, nor say which part of one is wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from s3t_ray.errors import ConfigError

SERVE_TOKEN = "S3T_SERVE_TOKEN"
DELETE_TOKEN = "S3T_DELETE_TOKEN"
SHORTEST = 16
"""Characters; a shorter one can be guessed."""


@dataclass(frozen=True)
class Tokens:
    """Digests of the two tokens: of equal length, so that not even a length shows in the time taken."""

    serve: bytes = field(repr=False)
    delete: bytes = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Tokens:
        """Raises ConfigError when one is missing, too short or both are the same."""
        found = os.environ if environment is None else environment
        told = {name: found.get(name, "") for name in (SERVE_TOKEN, DELETE_TOKEN)}
        for name, token in told.items():
            if len(token) < SHORTEST or not token.isascii() or any(char.isspace() for char in token):
                state = "not set" if not token else f"no ASCII text of {SHORTEST} or more characters without spaces"
                raise ConfigError(
                    f"{name} is {state}: the service does not start without it",
                    f"set it in the environment of every node, for example {name}=$(openssl rand -hex 32)",
                )
        if told[SERVE_TOKEN] == told[DELETE_TOKEN]:
            raise ConfigError(
                f"{SERVE_TOKEN} and {DELETE_TOKEN} are the same: whoever may ask could delete",
                f"give {DELETE_TOKEN} a value of its own",
            )
        return cls(_digest(told[SERVE_TOKEN]), _digest(told[DELETE_TOKEN]))

    def opens_model(self, authorization: str) -> bool:
        """Whether the Authorization header may ask the model."""
        return _opens(authorization, self.serve)

    def opens_deletions(self, authorization: str) -> bool:
        """Whether the Authorization header may delete, and see deletions."""
        return _opens(authorization, self.delete)


def _opens(authorization: str, digest: bytes) -> bool:
    scheme, _, token = authorization.partition(" ")
    return hmac.compare_digest(_digest(token.strip()), digest) and scheme.lower() == "bearer"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
