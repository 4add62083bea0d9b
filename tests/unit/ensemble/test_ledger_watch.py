"""The ledger watch: every answer is from a read that began after the question, and reads are shared."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from s3t_ray.ensemble.ledger_watch import LedgerWatch, LiveStages
from s3t_ray.errors import LedgerError
from s3t_ray.ledger.values import Event, EventKind


@dataclass(frozen=True)
class Row:
    id: str


class FakeLedger:
    """`live` ids, and an event for each change; `gate` holds reads up where it is set."""

    def __init__(self) -> None:
        self.ids = frozenset({"a", "b"})
        self.log = [Event(1, "", EventKind.STAGE_ACCEPTED, 0, "{}")]
        self.gate: threading.Event | None = None
        self.entered = threading.Event()
        self.broken = False
        self.reads = 0
        self.stage_reads = 0

    def change(self, ids: set[str], kind: str = EventKind.STAGE_STALE) -> None:
        self.ids = frozenset(ids)
        self.log.append(Event(self.log[-1].seq + 1, "", kind, 0, "{}"))

    def events(self, after: int) -> tuple[Event, ...]:
        self.reads += 1
        if self.broken:
            raise LedgerError("the ledger refused", "check it")
        seen = tuple(event for event in self.log if event.seq > after)
        if self.gate is not None:
            self.entered.set()
            assert self.gate.wait(30)
        return seen

    def stages(self, state: object) -> tuple[Row, ...]:
        self.stage_reads += 1
        return tuple(Row(name) for name in self.ids)


def test_what_is_live_and_a_prune_before_anybody_hears_of_it() -> None:
    ledger, pruned = FakeLedger(), []
    watch = LedgerWatch(ledger, lambda position, live: pruned.append((position, live)))  # type: ignore[arg-type]
    assert watch.live() == LiveStages(1, frozenset({"a", "b"}))
    ledger.change({"a"})
    assert watch.live() == LiveStages(2, frozenset({"a"}))
    assert pruned == [(1, frozenset({"a", "b"})), (2, frozenset({"a"}))]


def test_events_of_other_kinds_cost_no_read_of_the_stages() -> None:
    ledger = FakeLedger()
    watch = LedgerWatch(ledger, lambda position, live: None)  # type: ignore[arg-type]
    watch.live()
    ledger.change(set(ledger.ids), "depths")
    assert watch.live().position == 2
    assert ledger.stage_reads == 1


def test_who_asks_during_a_read_waits_for_the_next_one() -> None:
    """The read on its way may have looked before a deletion that the asker's answer must respect."""
    ledger = FakeLedger()
    watch = LedgerWatch(ledger, lambda position, live: None)  # type: ignore[arg-type]
    ledger.gate = threading.Event()
    first: list[LiveStages] = []
    thread = threading.Thread(target=lambda: first.append(watch.live()))
    thread.start()
    assert ledger.entered.wait(30)
    ledger.change({"a"})  # the first read has looked already
    later: list[LiveStages] = []
    others = [threading.Thread(target=lambda: later.append(watch.live())) for _ in range(8)]
    for other in others:
        other.start()
    ledger.gate.set()
    for waiting in (thread, *others):
        waiting.join(30)
    assert [known.live for known in later] == [frozenset({"a"})] * 8
    assert first[0].position in (1, 2)


def test_many_askers_share_reads() -> None:
    ledger = FakeLedger()
    watch = LedgerWatch(ledger, lambda position, live: None)  # type: ignore[arg-type]
    ledger.gate = threading.Event()
    threads = [threading.Thread(target=watch.live) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert ledger.entered.wait(30)
    pause = threading.Event()
    while sum(thread.is_alive() for thread in threads) < 20 or len(watch._changed._waiters) < 19:  # type: ignore[attr-defined]
        pause.wait(0.01)
    ledger.gate.set()
    for thread in threads:
        thread.join(30)
    assert ledger.reads == 2


def test_a_failed_read_is_reported_and_the_next_one_works() -> None:
    ledger = FakeLedger()
    watch = LedgerWatch(ledger, lambda position, live: None)  # type: ignore[arg-type]
    watch.live()
    ledger.change({"a"})
    ledger.broken = True
    with pytest.raises(LedgerError, match="refused"):
        watch.live()
    ledger.broken = False
    assert watch.live().live == {"a"}
