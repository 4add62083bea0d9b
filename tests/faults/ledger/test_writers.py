"""Several processes write to one ledger concurrently: each succeeds or gets an error, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

from s3t_ray.ledger.lthash import LtHash16
from tests.faults.ledger import children
from tests.unit.ledger.certify import opened
from tests.unit.ledger.world import PLACES, RUN, entries


def test_deletions_and_schedulers_at_once(
    new_url: Callable[[], str], processes: ForkServerContext, tmp_path: Path
) -> None:
    """Two delete the same records in opposite orders, so that they meet; a third replaces the scheduler."""
    url = new_url()
    with opened(url, create=True) as ledger:
        ledger.ingest(RUN, entries())
    names = children.all_records()
    one, two, three = (tmp_path / number for number in ("one", "two", "three"))
    running = [
        processes.Process(target=children.delete_one_by_one, args=(url, one, names)),
        processes.Process(target=children.delete_one_by_one, args=(url, two, names[::-1])),
        processes.Process(target=children.schedule, args=(url, three, 20)),
    ]
    for child in running:
        child.start()
    for child in running:
        child.join()
    assert [child.exitcode for child in running] == [0, 0, 0]
    with opened(url) as ledger:
        there = [row.receipt for row in ledger.deletions()]
        assert sorted(one.read_text().split()) == sorted(two.read_text().split())
        assert sorted(one.read_text().split()) == sorted(receipt.request_id for receipt in there)
        assert sum(receipt.records for receipt in there) == len(names)
        assert {state.digest for state in ledger.slices()} == {LtHash16().digest()}
        assert ledger.lease() == (20, "child", 1)
        assert three.read_text().split() == [str(epoch) for epoch in range(1, 21)]
        sequence = [event.seq for event in ledger.events()]
        assert sequence == sorted(set(sequence))


def test_two_begin_one_run(new_url: Callable[[], str], processes: ForkServerContext, tmp_path: Path) -> None:
    url = new_url()
    answers = tmp_path / "answers"
    running = [processes.Process(target=children.begin, args=(url, answers)) for _ in range(3)]
    for child in running:
        child.start()
    for child in running:
        child.join()
    assert [child.exitcode for child in running] == [0, 0, 0]
    assert sorted(answers.read_text().splitlines()) == ["ingested", *["the ledger already has run 'tiny'"] * 2]
    with opened(url) as ledger:
        assert ledger.run() == RUN
        assert [state.records for state in ledger.slices()] == [4] * len(PLACES)
