"""The first entry of a run's log: describes the run, and says since when its rows are sealed by its keys."""

from __future__ import annotations

from typing import Literal

from s3t_ray.proof.signed_entry import Count, Digest, RunFacts, SignedEntry


class RunEntryFacts(RunFacts):
    """The state of the run when its rows were sealed."""

    at: str
    sealed: Literal["ingest", "upgrade"]
    """upgrade: an older version ingested the records, and nothing before this entry is covered by a seal."""
    ledger_sequence: Count  # the ledger's sequence number then; everything above is sealed
    recipe_digest: str
    base_digest: str
    shards: Count
    slices: Count
    records: Count  # in the ledger, including deleted ones
    data: Digest  # of the digests of all slices, by place


class RunEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/run/1"] = "s3t/run/1"
    facts: RunEntryFacts
