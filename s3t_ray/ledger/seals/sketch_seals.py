"""Checks that the sketches are those made at ingest, and that the index leads to all of them.

In: a snapshot of the ledger and the run's keys. Out: one line per problem. A keyed seal fixes each sketch; the keys of
its bands follow from it, and how records were sketched stands under the seal of the run's row. Whoever changes any of
these without the run's keys can otherwise hide a deleted record's near-duplicates, or put other records in their place.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from s3t_ray.ledger import minhash_index
from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.query_batches import BATCH
from s3t_ray.ledger.tables import BANDS, RECORDS, SKETCHES


def broken_sketches(connection: Connection, keys: LedgerKeys, *, all_are_sealed: bool) -> Iterator[str]:
    """One line per problem. Reads every sketch and band once. `all_are_sealed`: False for runs of older versions."""
    sketching = minhash_index.read(connection)
    if sketching is None:
        if _count(connection, SKETCHES.c.record) or _count(connection, BANDS.c.record):
            yield "the ledger has sketches of records, but not how they were made: near-duplicates cannot be found"
        return
    if min(sketching.bands, sketching.rows) < 1 or sketching.bands * sketching.rows > sketching.permutations:
        yield "how the records were sketched was changed: the bands are longer than a sketch"
        return
    wrong, index = 0, _BandSum()
    for row in connection.execution_options(yield_per=BATCH).execute(_SKETCHES):
        seal = None if row.seal is None and not all_are_sealed else keys.sketch_seal(row.id_hmac, row.signature)
        wrong += row.seal != seal or len(row.signature) != sketching.permutations
        for key in set(minhash_index.band_keys(row.signature, sketching)):
            index.add(key, row.record)
    for row in connection.execution_options(yield_per=BATCH).execute(_BANDS):
        index.take(row.key, row.record)
    if wrong:
        yield f"{wrong} sketches of records are not what the keys sealed: near-duplicates of others would be found"
    if index.total:
        yield "the index of near-duplicates was changed: it does not lead to the records that the sketches say"
    if lacking := connection.scalar(_LACKING):
        yield f"{lacking} records have lost their sketch: they would not be found as near-duplicates"
    if strange := connection.scalar(_STRANGE):
        yield f"{strange} sketches are of records that the ledger does not have"


class _BandSum:
    """A sum of hashes under a fresh random key; zero if the same pairs were added and taken."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self.total = 0

    def add(self, key: int, record: int) -> None:
        self.total = (self.total + self._hash(key, record)) % _MODULUS

    def take(self, key: int, record: int) -> None:
        self.total = (self.total - self._hash(key, record)) % _MODULUS

    def _hash(self, key: int, record: int) -> int:
        pair = key.to_bytes(8, "big", signed=True) + record.to_bytes(8, "big", signed=True)
        return int.from_bytes(hashlib.blake2b(pair, key=self._key, digest_size=16).digest(), "big")


def _count(connection: Connection, column: object) -> int:
    return int(connection.scalar(select(func.count(column))) or 0)  # type: ignore[arg-type]


_MODULUS = 1 << 128
_SKETCHES = select(SKETCHES)
_BANDS = select(BANDS)
_OWN = select(SKETCHES.c.record).where(SKETCHES.c.id_hmac == RECORDS.c.id_hmac).exists()
_LACKING = select(func.count()).select_from(RECORDS).where(RECORDS.c.deletion.is_(None), ~_OWN)
_OF = select(RECORDS.c.id_hmac).where(RECORDS.c.id_hmac == SKETCHES.c.id_hmac).exists()
_STRANGE = select(func.count()).select_from(SKETCHES).where(~_OF)
