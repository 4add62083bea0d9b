"""The entry that begins a run's log: what the run is, and from when on its rows are under the run's keys."""

from __future__ import annotations

from typing import Literal

from s3t_ray.proof.signed_entry import Count, Digest, RunFacts, SignedEntry


class RunEntryFacts(RunFacts):
    """What the run was when its rows were sealed."""

    at: str
    sealed: Literal["ingest", "upgrade"]
    """upgrade: an older version had read the records, and nothing before this entry is covered by a seal."""
    ledger_sequence: Count  # the ledger's count then: what it counts above is sealed
    recipe_digest: str
    base_digest: str
    shards: Count
    slices: Count
    records: Count  # in the ledger, deleted ones too
    data: Digest  # of the digests of all slices, by place


class RunEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/run/1"] = "s3t/run/1"
    facts: RunEntryFacts
