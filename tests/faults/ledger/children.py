"""Child processes of the ledger's fault tests: lives of a ledger that are killed or disturbed.

A child acknowledges what the ledger has answered by a line in a file, written through before it goes
on: what stands there was acknowledged, whatever happened next.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, event

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState, StageState
from tests.unit.ledger.certify import certify, opened
from tests.unit.ledger.world import PER_SLICE, PLACES, RUN, Clock, entries, name, plan, record, train

FIRST = [record(0, 0, 1), record(0, 1, 1), record(-1, 0, 1)]
SECOND = [record(0, 1, 1), record(1, 2, 2)]
ACCEPTING = (4, 5)
"""The steps of a life that accept a deletion."""


def life(ledger: Ledger) -> list[Callable[[], object]]:
    """Steps of a ledger's life. Each is one write transaction, and can be repeated."""

    def epoch() -> int:
        return ledger.lease().epoch

    def request(number: int) -> str:
        return ledger.deletions()[number].receipt.request_id

    def stage(shard: int, depth: int) -> None:
        wanted = plan(ledger, shard)
        train(ledger, epoch(), [wanted.stages[wanted.chains[0][depth - 1]]])

    def erase() -> None:
        ledger.mark_purged(epoch(), [row.id for row in ledger.stages(state=StageState.STALE)])

    def write_slice(place: tuple[int, int]) -> None:
        (state,) = [s for s in ledger.slices() if (s.shard, s.slice) == place]
        ledger.set_slice_file(epoch(), *place, f"slices/{state.digest}", "c" * 64, state.digest)

    def restore(number: int) -> None:
        if ledger.certificate(request(number)) is None:
            certify(ledger, epoch(), request(number))

    return [
        lambda: ledger.take_lease("child"),
        lambda: stage(0, 1),
        lambda: stage(0, 2),
        lambda: stage(1, 1),
        lambda: ledger.accept_deletion(FIRST, [name("subject", "at 1.0")]),
        lambda: ledger.accept_deletion(SECOND),
        lambda: stage(0, 1),
        lambda: ledger.advance(epoch(), request(0), DeletionState.PRUNED),
        lambda: ledger.advance(epoch(), request(1), DeletionState.PRUNED),
        erase,
        *(lambda place=place: write_slice(place) for place in ((-1, 0), (0, 0), (0, 1), (1, 0), (1, 2))),
        lambda: ledger.advance(epoch(), request(0), DeletionState.PURGED),
        lambda: ledger.advance(epoch(), request(1), DeletionState.PURGED),
        lambda: restore(0),
        lambda: restore(1),
    ]


def live(url: str, acknowledged: Path, kill_at: int) -> None:
    """Live it, and die by SIGKILL at the `kill_at`-th moment (0: never).

    Moments are those of write transactions: before each statement, before the commit, and after it
    before the step is acknowledged. An acknowledgement tells how many there have been.
    """
    moments = 0

    def moment() -> None:
        nonlocal moments
        moments += 1
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def in_write(connection: Connection, *_: object) -> None:
        if connection.get_execution_options().get("s3t_write"):
            moment()

    with opened(url, clock=Clock()) as ledger:
        engine = ledger._database._engine
        event.listen(engine, "before_cursor_execute", in_write)
        event.listen(engine, "commit", in_write)
        for number, step in enumerate(life(ledger)):
            step()
            moment()
            acknowledge(acknowledged, f"{number} {moments}")


def delete_one_by_one(url: str, acknowledged: Path, names: list[bytes]) -> None:
    """A deletion for each name, acknowledged by its request id."""
    with opened(url) as ledger:
        for one in names:
            answer = ledger.accept_deletion([one])
            acknowledge(acknowledged, answer.receipt.request_id)


def schedule(url: str, acknowledged: Path, rounds: int) -> None:
    """Repeatedly take the lease and send heartbeats, while others delete."""
    with opened(url) as ledger:
        for _ in range(rounds):
            epoch = ledger.take_lease("child")
            ledger.beat(epoch)
            acknowledge(acknowledged, str(epoch))


def begin(url: str, acknowledged: Path) -> None:
    """Create the ledger and write the run, if nobody else does."""
    with opened(url, create=True) as ledger:
        try:
            ledger.ingest(RUN, entries())
            acknowledge(acknowledged, "ingested")
        except LedgerError as error:
            acknowledge(acknowledged, error.problem)


def all_records() -> list[bytes]:
    return [record(*place, number) for place in PLACES for number in range(PER_SLICE)]


def acknowledge(path: Path, line: str) -> None:
    """Write one line, unbuffered."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)
