"""What is in training, as the scheduler noted it: whole each time, and by the newest scheduler only."""

from __future__ import annotations

import pytest

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import Fenced, RunningNote

ONE = RunningNote("a" * 64, 0, (2, 0, 1), 3, 4, 9, 2.5, 120.0, "2026-01-01T00:00:00.000000+00:00")
OTHER = RunningNote("b" * 64, 1, (0,), 1, 0, 0, None, None, "2026-01-01T00:00:00.000000+00:00")


def test_a_note_takes_the_place_of_the_one_before(ledger: Ledger, url: str) -> None:
    epoch = ledger.take_lease("one")
    assert ledger.running() == ()
    ledger.note_running(epoch, [ONE, OTHER])
    with Ledger.open(url) as elsewhere:
        assert elsewhere.running() == (OTHER, ONE)  # by worker group
    ledger.note_running(epoch, [ONE])
    assert ledger.running() == (ONE,)
    ledger.note_running(epoch, [])
    assert ledger.running() == ()


def test_a_scheduler_that_was_replaced_notes_nothing(ledger: Ledger) -> None:
    old = ledger.take_lease("old")
    ledger.note_running(old, [ONE])
    ledger.take_lease("new")
    with pytest.raises(Fenced):
        ledger.note_running(old, [])
    assert ledger.running() == (ONE,)
