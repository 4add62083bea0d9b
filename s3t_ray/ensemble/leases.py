"""Leases on the live set in service. A lease ends when one of its stages leaves service.

In: live sets, put in service by `swap`. Out: leases. The turns of a lease (one forward pass each) use
the live set that the lease started with, for as long as every stage of that set stays live.

After `swap` returns, no turn is running on a removed stage, none will ever complete on one, and nothing
here references its weights. A swap waits for running turns, never for a complete answer. No torch, no
disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar


class LeasedSet(Protocol):
    """A set of stages that can be put in service."""

    @property
    def stage_ids(self) -> frozenset[str]: ...


S = TypeVar("S", bound=LeasedSet)
T = TypeVar("T")


class Revoked(Exception):
    """A stage of the lease has left the live set, so its results are invalid. Never leaves this package."""


class Lease(Generic[S]):
    """The right to compute with one live set.

    `memory` holds results computed with it (a key-value cache); revoking the lease clears it.
    """

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
        """The live set in service now."""
        with self._changed:
            return self._live

    def begin(self) -> Lease[S]:
        """Start a lease on the current live set. The caller must `end` it."""
        with self._changed:
            lease = Lease(self._live)
            self._leases.add(lease)
            return lease

    def end(self, lease: Lease[S]) -> None:
        """End a lease and clear its memory."""
        with self._changed:
            self._leases.discard(lease)
            lease._revoke()

    @contextmanager
    def lease(self) -> Iterator[Lease[S]]:
        """A lease on the current live set, which ends with the context."""
        lease = self.begin()
        try:
            yield lease
        finally:
            self.end(lease)

    def turn(self, lease: Lease[S], compute: Callable[[S], T]) -> T:
        """The result of `compute(live set of the lease)`. Raises Revoked if the lease was revoked before the end."""
        results = self.turns([lease], lambda held: [compute(live) for _, live in held])
        if lease not in results:
            raise Revoked
        return results[lease]

    def turns(
        self, leases: Sequence[Lease[S]], compute: Callable[[Sequence[tuple[Lease[S], S]]], Sequence[T]]
    ) -> dict[Lease[S], T]:
        """Run one turn for several leases: `compute` gets the valid ones and returns a result for each.

        Returns the results of the leases that stayed valid until the end. The final check holds the lock that `swap`
        takes, so a returned result was complete before any swap.
        """
        with self._changed:
            held = [(lease, lease.live) for lease in leases if lease.live is not None]
            for lease, _ in held:
                lease.busy = True
        owners = [lease for lease, _ in held]
        try:
            results = compute(held) if held else []
        finally:
            held.clear()  # a swap that waits for this turn guarantees that nothing references the set
            with self._changed:
                for lease in owners:
                    lease.busy = False
                kept = [lease.live is not None for lease in owners]
                for lease, holds in zip(owners, kept, strict=True):
                    if not holds:
                        lease._revoke()  # clear what this turn has just stored in its memory
                self._changed.notify_all()
        return {lease: result for lease, result, holds in zip(owners, results, kept, strict=True) if holds}

    def swap(self, choose: Callable[[S], S]) -> S:
        """Put `choose(current live set)` in service; return it once no turn is running on a removed stage.

        `choose` runs under the lock, so it must be fast and must not access the disk.
        """
        with self._changed:
            self._live = chosen = choose(self._live)
            gone = []
            for lease in tuple(self._leases):  # garbage collection of a stream may end its lease during the loop
                if lease.live is not None and not lease.live.stage_ids <= chosen.stage_ids:
                    lease._revoke()
                    gone.append(lease)
            self._changed.wait_for(lambda: not any(lease.busy for lease in gone))
            return chosen
