"""The outbox: output produced after a ledger read began is never released by that read."""

from __future__ import annotations

from s3t_ray.ensemble.answers import Started, Token
from s3t_ray.ensemble.batching.outbox import Outbox, Said


def test_what_is_said_during_the_look_waits_for_the_next_even_when_another_is_forgotten_meanwhile() -> None:
    outbox = Outbox()
    outbox.put([Said("leaving", Started(1, (1,), ("a",))), Said("leaving", Token(1)), Said("one", Token(2))])

    def look() -> set[str]:
        outbox.forget("leaving")  # its listener goes away while the ledger is read
        outbox.put([Said("late", Started(1, (1,), ("a",))), Said("late", Token(3))])
        return {"a"}

    assert outbox.take(look).released == (Said("one", Token(2)),)
    struck = outbox.take(set[str])
    assert struck.released == (), "the stage was struck between the two looks"
