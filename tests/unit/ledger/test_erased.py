"""Rows that a purge erases are also gone from SQLite's files, including free pages and logs."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.ledger.values import RecordEntry
from tests.unit.ledger.certify import opened
from tests.unit.ledger.test_closure import SKETCHING, record
from tests.unit.ledger.world import PLACES, RUN, purge, train_all


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def test_no_byte_is_left_in_the_file_or_its_log(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made = [record(f"r{number}", PLACES[number % len(PLACES)], f"c{number}") for number in range(2000)]
    with opened(f"sqlite:///{path}", create=True) as ledger:
        ledger.ingest(RUN, made, SKETCHING)
        epoch = ledger.take_lease("me")
        train_all(ledger, epoch)
        gone = made[::29]
        request = ledger.accept_deletion([entry.id_hmac for entry in gone]).receipt.request_id
        assert left(gone, path) == 3 * len(gone)
        purge(ledger, epoch, request)
        assert left(gone, path) == 0, "with the ledger still open"
        assert left(made[1:10], path) == 3 * 9
    assert left(gone, path) == 0


def left(entries: list[RecordEntry], path: Path) -> int:
    data = bytes_on_disk(path)
    return sum(
        secret in data for entry in entries for secret in (entry.content_hmac, entry.digest, entry.signature or b"")
    )
