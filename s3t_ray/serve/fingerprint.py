"""What an answer rests on, in one short text: a hash of the ids of its stages.

In: stage ids. Out: `s3t-` and 24 hexadecimal digits. Two answers have the same fingerprint exactly when the same stages
made them, in the same shards; the ids themselves stand in the answer, so that an auditor can compare them with those
that a receipt says were struck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def fingerprint(stages: Sequence[str]) -> str:
    """Of `stages`, shard by shard and each shard's from depth 1 down, as `Started.stages` has them."""
    digest = hashlib.sha256(b"s3t stages\n" + "\n".join(stages).encode())
    return f"s3t-{digest.hexdigest()[:24]}"
