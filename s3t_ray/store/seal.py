"""Seals of manifests: without the key of a job no one can make one, or use one stage's manifest for another.

In: a manifest and the key of its job, which is derived from the run's secret for this one stage, or this one slice in
this one state of its data. Out: a keyed MAC over everything in the manifest, including the digests of its files. The
ledger is not needed to check it: worker groups cannot reach it.
"""

from __future__ import annotations

import hmac
import json
from typing import TypeVar

from pydantic import BaseModel


class Sealed(BaseModel):
    """A manifest with a seal over its other fields."""

    seal: str | None = None  # hex; None: written by a version that sealed nothing


SealedT = TypeVar("SealedT", bound=Sealed)


def seal(manifest: SealedT, key: str) -> SealedT:
    """The manifest with its seal. `key`: hex, of the job that it was made in."""
    return manifest.model_copy(update={"seal": _mac(manifest, key)})


def is_sealed_with(manifest: Sealed, key: str) -> bool:
    """Whether this manifest was written with `key` and is unchanged."""
    # As bytes: of texts, only ASCII can be compared, and this one may be anybody's.
    return manifest.seal is not None and hmac.compare_digest(manifest.seal.encode(), _mac(manifest, key).encode())


def _mac(manifest: Sealed, key: str) -> str:
    said = json.dumps(manifest.model_dump(mode="json", exclude={"seal"}), sort_keys=True, separators=(",", ":"))
    return hmac.digest(bytes.fromhex(key), f"{type(manifest).__name__}\n{said}".encode(), "sha256").hex()
