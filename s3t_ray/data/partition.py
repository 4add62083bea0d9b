"""Assigns records to shards and slices by a keyed hash of the record's id, or of its subject.

In: a record's id and subject, the config, and the run's secret. Out: a Place. Pure: it depends only on its arguments,
so removing a record moves no other, and every process gets the same result. Never depends on the content or on how full
a slice is.

The partition is computed once, at ingest. From then on the ledger stores the place of each record, so runs of earlier
versions, whose hash used only the seed, keep their partition. Certificates name slices. With only the seed, anyone
could compute who may be in a slice; with the secret, nobody without it can.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from s3t_ray.config.schema import Config

_PLACE_DOMAIN = b"s3t/place/1"
_HOLDOUT_DOMAIN = b"s3t/holdout/1"
_KEYED_PLACE_DOMAIN = b"s3t/place/2"
_KEYED_HOLDOUT_DOMAIN = b"s3t/holdout/2"


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """The shard and slice of a record. Slices count from 0 within their shard."""

    shard: int
    slice: int


HOLDOUT = Place(-1, 0)
"""The place of held-out records, which belong to no shard."""


def place(record_id: str, subject: str | None, config: Config, secret: bytes | None) -> Place:
    """The place of a record under `config`.

    `secret`: the run's 32 bytes from `Keys.place_key`; None: use only the seed. The seed is always part
    of the hash. With `partition_by: subject`, all records of a person share one place and are held out
    together; a record without a subject is placed by its id.
    """
    by_subject = config.data.partition_by == "subject" and subject is not None
    # Hash the kind too, so that a subject and a record id with the same text are independent.
    name = f"subject:{subject}" if by_subject else f"record:{record_id}"
    holdout, shards = (
        (_HOLDOUT_DOMAIN, _PLACE_DOMAIN) if secret is None else (_KEYED_HOLDOUT_DOMAIN, _KEYED_PLACE_DOMAIN)
    )
    if config.data.holdout and _hash(holdout, config.seed, name, secret) < config.data.holdout * 2.0**128:
        return HOLDOUT
    return Place(*divmod(_hash(shards, config.seed, name, secret) % (config.shards * config.slices), config.slices))


def places(config: Config) -> tuple[Place, ...]:
    """Every place of a run, including empty ones: first that of held-out records, then shard by shard."""
    return (HOLDOUT, *(Place(shard, index) for shard in range(config.shards) for index in range(config.slices)))


def _hash(domain: bytes, seed: int, name: str, secret: bytes | None) -> int:
    """A number below 2^128. Its remainder by any number of slices is uniform to one part in 2^100."""
    seeded = seed.to_bytes(8, "big")
    key, salt = (seeded, b"") if secret is None else (secret, seeded)
    digest = hashlib.blake2b(name.encode(), digest_size=16, key=key, salt=salt, person=domain).digest()
    return int.from_bytes(digest, "big")
