"""Seals manifests: without the job's key, nobody can create a manifest, or reuse one stage's manifest for another.

In: a manifest and its job's key, which is derived from the run's secret for one stage, or for one slice in one version
of its data. Out: a MAC over the entire manifest, including the digests of its files. Checking it does not need the
ledger, which worker groups cannot reach.
"""

from __future__ import annotations

import hmac
import json
from typing import TypeVar

from pydantic import BaseModel


class Sealed(BaseModel):
    """A manifest with a seal over its other fields."""

    seal: str | None = None  # hex; None: written by a version without seals


SealedT = TypeVar("SealedT", bound=Sealed)


def seal(manifest: SealedT, key: str) -> SealedT:
    """The manifest with its seal. `key`: the key of its job, in hex."""
    return manifest.model_copy(update={"seal": _mac(manifest, key)})


def is_sealed_with(manifest: Sealed, key: str) -> bool:
    """Whether this manifest was written with `key` and is unchanged."""
    # Compare bytes, because compare_digest accepts only ASCII text and the seal is untrusted.
    return manifest.seal is not None and hmac.compare_digest(manifest.seal.encode(), _mac(manifest, key).encode())


def _mac(manifest: Sealed, key: str) -> str:
    said = json.dumps(manifest.model_dump(mode="json", exclude={"seal"}), sort_keys=True, separators=(",", ":"))
    return hmac.digest(bytes.fromhex(key), f"{type(manifest).__name__}\n{said}".encode(), "sha256").hex()
