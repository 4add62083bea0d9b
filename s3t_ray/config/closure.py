"""The config section about finding records that are similar to a deleted one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from s3t_ray.config.model_shape import Section


class Closure(Section):
    """How to find records that are similar to a deleted one. Only requested records are ever deleted."""

    near_duplicates: bool = True
    """Compute a MinHash signature of every record at ingest, so that a deletion can list records with nearly the same
    content, or images that look the same. Exact duplicates are always listed. Costs about 0.3 ms and 400 bytes of the
    ledger per record."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Jaccard similarity of shingles at or above which two records are near-duplicates. The index is built for this
    value at ingest, so lowering it later misses some."""
    permutations: Annotated[int, Field(ge=16, le=256)] = 64
    """Bytes per MinHash signature. The similarity is known to about 0.5 / sqrt(permutations). Fixed at ingest."""
    shingle_words: PositiveInt = 5
    """Length of a shingle in words. Fixed at ingest."""
