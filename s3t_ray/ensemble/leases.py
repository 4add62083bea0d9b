"""Who may answer now: one live set in service, and leases that end when it loses a stage of theirs.

In: live sets, put in service by `swap`. Out: leases; the turns of a lease (one forward pass each)
compute with the live set that it began with, for as long as every stage of that set stays live.

After `swap` returns, no turn is running on a stage that left, none will ever complete on one, and
nothing here refers to its weights any more. A swap waits for the turns that are running, never for a
whole answer. No torch, no disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar


class LeasedSet(Protocol):
    """What is put in service."""

    @property
    def stage_ids(self) -> frozenset[str]: ...


S = TypeVar("S", bound=LeasedSet)
T = TypeVar("T")


class Revoked(Exception):
    """A stage of the lease has left the live set: what it computed is void. Never leaves this room."""


class Lease(Generic[S]):
    """The right to compute with one live set. `memory` is for what was computed with it so far (a
    key-value cache): it goes when the lease is revoked."""

    def __init__(self, live: S) -> None:
        self.live: S | None = live
        self.memory: Any = None
        self.busy = False

    def _revoke(self) -> None:
        self.live = None
        self.memory = None


class LiveService(Generic[S]):
    """The live set in service and the leases on it. Every method may be called from any thread."""

    def __init__(self, live: S) -> None:
        self._live = live
        self._leases: set[Lease[S]] = set()
        self._changed = threading.Condition()

    @property
    def live(self) -> S:
        """The live set in service at this instant."""
        with self._changed:
            return self._live

    def begin(self) -> Lease[S]:
        """A lease on what is in service now; `end` it."""
        with self._changed:
            lease = Lease(self._live)
            self._leases.add(lease)
            return lease

    def end(self, lease: Lease[S]) -> None:
        """The lease is over; what it remembers goes."""
        with self._changed:
            self._leases.discard(lease)
            lease._revoke()

    @contextmanager
    def lease(self) -> Iterator[Lease[S]]:
        """A lease on what is in service now; it ends with the block."""
        lease = self.begin()
        try:
            yield lease
        finally:
            self.end(lease)

    def turn(self, lease: Lease[S], compute: Callable[[S], T]) -> T:
        """`compute(live set of the lease)`, if the lease held until the end. Raises Revoked."""
        results = self.turns([lease], lambda held: [compute(live) for _, live in held])
        if lease not in results:
            raise Revoked
        return results[lease]

    def turns(
        self, leases: Sequence[Lease[S]], compute: Callable[[Sequence[tuple[Lease[S], S]]], Sequence[T]]
    ) -> dict[Lease[S], T]:
        """One turn of several leases at once: `compute` gets those that hold, and gives a result for each.

        Returns the results of those that held until the end. The last look at a lease is under the lock that
        `swap` takes: a result that gets out was complete before the swap.
        """
        with self._changed:
            held = [(lease, lease.live) for lease in leases if lease.live is not None]
            for lease, _ in held:
                lease.busy = True
        owners = [lease for lease, _ in held]
        try:
            results = compute(held) if held else []
        finally:
            held.clear()  # a swap that waits for this turn promises that nothing holds the set
            with self._changed:
                for lease in owners:
                    lease.busy = False
                kept = [lease.live is not None for lease in owners]
                for lease, holds in zip(owners, kept, strict=True):
                    if not holds:
                        lease._revoke()  # what this turn has just put in its memory
                self._changed.notify_all()
        return {lease: result for lease, result, holds in zip(owners, results, kept, strict=True) if holds}

    def swap(self, choose: Callable[[S], S]) -> S:
        """Put `choose(live set in service)` in service and return it, once no turn runs on a stage that left.

        `choose` runs under the lock: it must be quick, and touch no disk.
        """
        with self._changed:
            self._live = chosen = choose(self._live)
            gone = []
            for lease in tuple(self._leases):  # a collected stream may end its lease meanwhile
                if lease.live is not None and not lease.live.stage_ids <= chosen.stage_ids:
                    lease._revoke()
                    gone.append(lease)
            self._changed.wait_for(lambda: not any(lease.busy for lease in gone))
            return chosen
