"""Which shard and slice a record falls in: a keyed hash of its id, or of its subject.

In: a record's id and subject, the config, and the run's secret. Out: a Place. Pure: it looks at nothing but its
arguments, so removing one record moves no other, and every process agrees. Must never look at
content, or at how full a slice is.

Asked once, when a run's data is read in: from then on the ledger says where each record lies, so that runs of
earlier versions, whose hash knew the seed alone, stay as they are. Certificates name slices. Under the seed alone
anyone could tell which people a slice could hold; without the secret nobody can.
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
    """Where a record lies. Slices count from 0 within their shard."""

    shard: int
    slice: int


HOLDOUT = Place(-1, 0)
"""Records kept from training belong to no shard."""


def place(record_id: str, subject: str | None, config: Config, secret: bytes | None) -> Place:
    """Where the record falls under `config`.

    `secret`: 32 bytes, of the run (`Keys.place_key`); None: by the seed alone. Either way the seed decides too.
    With `partition_by: subject` a person's records share one place, and are held out together. A
    record without a subject goes by its own id.
    """
    by_subject = config.data.partition_by == "subject" and subject is not None
    # The kind is hashed too: a subject called like some record's id shares nothing with it.
    name = f"subject:{subject}" if by_subject else f"record:{record_id}"
    holdout, shards = (
        (_HOLDOUT_DOMAIN, _PLACE_DOMAIN) if secret is None else (_KEYED_HOLDOUT_DOMAIN, _KEYED_PLACE_DOMAIN)
    )
    if config.data.holdout and _hash(holdout, config.seed, name, secret) < config.data.holdout * 2.0**128:
        return HOLDOUT
    return Place(*divmod(_hash(shards, config.seed, name, secret) % (config.shards * config.slices), config.slices))


def places(config: Config) -> tuple[Place, ...]:
    """Every place of a run, full or empty: the held-out records' first, then shard by shard."""
    return (HOLDOUT, *(Place(shard, index) for shard in range(config.shards) for index in range(config.slices)))


def _hash(domain: bytes, seed: int, name: str, secret: bytes | None) -> int:
    """A number below 2^128; the remainder by any number of slices is even to one part in 2^100."""
    seeded = seed.to_bytes(8, "big")
    key, salt = (seeded, b"") if secret is None else (secret, seeded)
    digest = hashlib.blake2b(name.encode(), digest_size=16, key=key, salt=salt, person=domain).digest()
    return int.from_bytes(digest, "big")
