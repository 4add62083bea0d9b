"""Sketches: find near-duplicate records by index, from keyed bytes alone.

In: MinHash signatures with one byte per permutation (b-bit MinHash, Li and König 2010), computed with a secret key, so
that nobody without it can test a guessed content. Each signature is split into bands, and one row of `s3t_bands` per
band points to the record: locality-sensitive hashing with the database as its table. Out: id HMACs of records whose
estimated Jaccard similarity reaches a threshold.

The standard error of the estimate is at most sqrt(j (1 - j) / permutations): 0.05 at 0.8 with 64. Bands are chosen so
that a pair at the threshold shares a band with 99% probability, and a more similar pair almost certainly. Measured
(benchmarks/closure.py) with 64 permutations and 12 bands, per record: 380 bytes in the ledger, 0.07 ms to write, 0.2 ms
to sketch, 0.9 ms to look up. All of it is erased when the record's deletion is purged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.query_batches import pieces
from s3t_ray.ledger.tables import BANDS, SKETCHES, SKETCHING
from s3t_ray.ledger.values import RecordEntry, Sketching

RECALL = 0.99
"""Probability that two records exactly at the threshold share a band."""
_VALUES = 256  # of one permutation's byte: different records agree by chance at this rate
_OWN_AT_ONCE = 100
_MET = "SELECT record FROM s3t_bands WHERE "
_SKETCHES = "SELECT id_hmac, signature, seal FROM s3t_sketches WHERE "

SketchSeal = Callable[[bytes, bytes], bytes]
"""The seal that a record's sketch must have: see `LedgerKeys.sketch_seal`."""


def choose_bands(permutations: int, threshold: float) -> tuple[int, int]:
    """(bands, rows per band): the longest bands, so the fewest chance matches, with a recall of 99%.

    If the threshold is too low for that: one row per band, which has the highest recall.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= RECALL:
            return bands, rows
    return permutations, 1


def store(connection: Connection, sketching: Sketching) -> None:
    """Record how this run's records are sketched."""
    connection.execute(
        insert(SKETCHING).values(
            id=1,
            permutations=sketching.permutations,
            shingle_words=sketching.shingle_words,
            bands=sketching.bands,
            rows_a_band=sketching.rows,
        )
    )


def read(connection: Connection) -> Sketching | None:
    """See `Ledger.sketching`."""
    row = connection.execute(select(SKETCHING)).one_or_none()
    return None if row is None else Sketching(row.permutations, row.shingle_words, row.bands, row.rows_a_band)


def add(
    connection: Connection, sketching: Sketching, entries: Sequence[RecordEntry], first: int, seal_of: SketchSeal
) -> None:
    """Add the sketches of one batch; its records are numbered from `first`."""
    named = [(number, entry.id_hmac, entry.signature or b"") for number, entry in enumerate(entries, start=first)]
    sketched = [(*row, seal_of(row[1], row[2])) for row in named]
    bands = [(key, number) for number, _, signature in named for key in band_keys(signature, sketching)]
    # In the driver's own SQL, as in `pieces`: there are a dozen rows per record.
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    connection.exec_driver_sql(
        f"INSERT INTO s3t_sketches (record, id_hmac, signature, seal) VALUES ({', '.join([mark] * 4)})", sketched
    )
    # Keys are hashes, so rows are scattered over the index; in order they at least share pages.
    connection.exec_driver_sql(f"INSERT INTO s3t_bands (key, record) VALUES ({mark}, {mark})", sorted(bands))


def remove(connection: Connection, ids: Sequence[bytes]) -> None:
    """Erase the sketches of these records."""
    sketching = read(connection)
    if sketching is None:
        return
    for wanted, values in pieces(connection, SKETCHES.c.id_hmac, ids):
        rows = connection.exec_driver_sql(f"SELECT record, signature FROM s3t_sketches WHERE {wanted}", values).all()
        pairs = [
            {"band": key, "number": row.record} for row in rows for key in set(band_keys(row.signature, sketching))
        ]
        if pairs:
            connection.execute(
                delete(BANDS).where(BANDS.c.key == bindparam("band"), BANDS.c.record == bindparam("number")), pairs
            )
        connection.exec_driver_sql(f"DELETE FROM s3t_sketches WHERE {wanted}", values)


def alike(
    connection: Connection,
    sketching: Sketching,
    ids: Iterable[bytes],
    threshold: float,
    seal_of: SketchSeal | None = None,
) -> frozenset[bytes]:
    """Id HMACs of sketched records that are nearly like one of `ids`, these themselves left out.

    With `seal_of` each sketch that is looked at must carry its seal (LedgerError).
    """
    named = frozenset(ids)
    ordered = sorted(named)
    found: set[bytes] = set()
    for start in range(0, len(ordered), _OWN_AT_ONCE):
        own = _signatures(connection, ordered[start : start + _OWN_AT_ONCE], seal_of)
        keys = sorted({key for signature in own for key in band_keys(signature, sketching)})
        met: set[int] = set()
        for wanted, values in pieces(connection, BANDS.c.key, keys):
            met.update(row[0] for row in connection.exec_driver_sql(_MET + wanted, values))
        for wanted, values in pieces(connection, SKETCHES.c.record, sorted(met)):
            rows = _sealed(connection.exec_driver_sql(_SKETCHES + wanted, values).all(), seal_of)
            best = likeness(own, [row.signature for row in rows]).max(axis=0, initial=0.0)
            found.update(row.id_hmac for row, value in zip(rows, best, strict=True) if value >= threshold)
    return frozenset(found - named)


def _signatures(connection: Connection, ids: Sequence[bytes], seal_of: SketchSeal | None) -> list[bytes]:
    """The signatures of these records, each once."""
    found: set[bytes] = set()
    for wanted, values in pieces(connection, SKETCHES.c.id_hmac, ids):
        rows = connection.exec_driver_sql(_SKETCHES + wanted, values).all()
        found.update(row.signature for row in _sealed(rows, seal_of))
    return sorted(found)


def _sealed(rows: Sequence[Row[Any]], seal_of: SketchSeal | None) -> Sequence[Row[Any]]:
    wrong = 0 if seal_of is None else sum(row.seal != seal_of(row.id_hmac, row.signature) for row in rows)
    if wrong:
        raise LedgerError(
            f"{wrong} sketches of records are not what the run's keys sealed: their rows were changed outside the run, "
            "and other records would be deleted as near-duplicates; nothing was deleted",
            "run `s3t audit` to investigate, and restore the ledger from a copy",
        )
    return rows


def likeness(own: Sequence[bytes], others: Sequence[bytes]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of each of `own` [rows] with each of `others` [columns]."""
    table = np.zeros((len(own), len(others)))
    if own and others:
        columns = np.frombuffer(b"".join(others), dtype=np.uint8).reshape(len(others), -1)
        for row, signature in enumerate(own):
            agree = (columns == np.frombuffer(signature, dtype=np.uint8)).mean(axis=1)
            table[row] = (agree - 1 / _VALUES) / (1 - 1 / _VALUES)
    return table


def band_keys(signature: bytes, sketching: Sketching) -> list[int]:
    """The keys of a signature's bands: signed 64-bit integers, as in databases."""
    rows = sketching.rows
    keys = []
    for band in range(sketching.bands):
        piece = band.to_bytes(2, "big") + signature[band * rows : (band + 1) * rows]
        keys.append(int.from_bytes(hashlib.blake2b(piece, digest_size=8).digest(), "big", signed=True))
    return keys
