"""What is in training, as the scheduler noted it: whole each time, and by the newest scheduler only."""

from __future__ import annotations

import pytest

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import Fenced, RunningStage

ONE = RunningStage("a" * 64, 0, (2, 0, 1), 3, 4, 9, 2.5, 120.0)
OTHER = RunningStage("b" * 64, 1, (0,), 1, 0, 0, None, None)


def stages(ledger: Ledger) -> tuple[RunningStage, ...]:
    return tuple(note.stage for note in ledger.running())


def test_a_note_takes_the_place_of_the_one_before(ledger: Ledger, url: str) -> None:
    epoch = ledger.take_lease("one")
    assert ledger.running() == ()
    ledger.note_running(epoch, [ONE, OTHER])
    with Ledger.open(url) as elsewhere:
        assert stages(elsewhere) == (OTHER, ONE)  # by worker group
    ledger.note_running(epoch, [ONE])
    assert stages(ledger) == (ONE,)
    ledger.note_running(epoch, [])
    assert ledger.running() == ()


def test_a_scheduler_that_was_replaced_notes_nothing(ledger: Ledger) -> None:
    old = ledger.take_lease("old")
    ledger.note_running(old, [ONE])
    ledger.take_lease("new")
    with pytest.raises(Fenced):
        ledger.note_running(old, [])
    assert stages(ledger) == (ONE,)
