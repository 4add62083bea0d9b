"""A short fingerprint of the stages behind an answer: a hash of their ids.

In: stage ids. Out: `s3t-` and 24 hexadecimal digits. Two answers have the same fingerprint exactly if the same stages
in the same shards produced them. The answer also contains the ids, so that an auditor can compare them with the pruned
stages of a receipt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def fingerprint(stages: Sequence[str]) -> str:
    """Fingerprint of `stages`, by shard and from depth 1 down, as in `Started.stages`."""
    digest = hashlib.sha256(b"s3t stages\n" + "\n".join(stages).encode())
    return f"s3t-{digest.hexdigest()[:24]}"
