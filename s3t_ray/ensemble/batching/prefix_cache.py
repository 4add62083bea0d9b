"""Reuses the cache of an earlier prompt for a new prompt with the same prefix.

In: the caches of completed generations, each with its lease. Out: the longest prefix that one of them shares with a
new prompt. Revoking a lease drops its cache, so results of a pruned stage are never reused. Entries for a live set that
is no longer in service are dropped, because no new generation can use them.

Callers share the cache: the time to the first token can reveal that somebody recently sent the same prefix. Nothing
else about a prompt is exposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from s3t_ray.ensemble.batching.cache_arena import CacheArenas, KeyValueCache
from s3t_ray.ensemble.leases import Lease, LiveService, Revoked
from s3t_ray.ensemble.live_set import LiveSet

MOST_ENTRIES = 32
SHORTEST = 8
"""In tokens. A shorter prefix is computed again, which is cheaper than a copy."""


@dataclass
class CachedText:
    """A text whose `tokens` are in the cache in the lease's memory."""

    tokens: tuple[int, ...]
    lease: Lease[LiveSet]


class PrefixCache:
    """The cached prefixes. Used by one thread. `capacity`: tokens over all entries."""

    def __init__(self, service: LiveService[LiveSet], arenas: CacheArenas, capacity: int) -> None:
        self._service = service
        self._arenas = arenas
        self._capacity = capacity
        self._entries: list[CachedText] = []  # the most recently used is last

    def keep(self, text: CachedText) -> None:
        """Keep the cache of a completed generation, and take over its lease."""
        if len(text.tokens) < SHORTEST:
            self._service.end(text.lease)
            return
        with suppress(Revoked):  # a revoked lease has no cache, and `shrink` drops the entry
            self._service.turn(text.lease, lambda _: _move_out(text))
        self._entries.append(text)
        self.shrink(self._capacity)

    def shrink(self, tokens: int) -> None:
        """Drop the least recently used entries until at most `tokens` tokens remain."""
        layout = self._service.live.layout
        kept: list[CachedText] = []
        room = min(tokens, self._capacity)
        for entry in reversed(self._entries):
            live = entry.lease.live
            if live is None or live.layout is not layout or len(entry.tokens) > room or len(kept) == MOST_ENTRIES:
                self._service.end(entry.lease)
                continue
            room -= len(entry.tokens)
            kept.append(entry)
        self._entries = kept[::-1]

    def begin(self, lease: Lease[LiveSet], prompt: tuple[int, ...], room: int, running: Iterable[CachedText]) -> int:
        """Give `lease` a cache with the longest known prefix of `prompt`. Returns its length in tokens.

        Leaves at least one token of the prompt to compute. The texts in `running` are candidates as well.
        """
        best, shared = None, 0
        for text in (*self._entries, *running):
            length = _common(text.tokens, prompt, len(prompt) - 1)
            if length > max(shared, SHORTEST - 1):
                best, shared = text, length
        if best is None:
            return 0
        source = best.lease

        def copy(held: Sequence[tuple[Lease[LiveSet], LiveSet]]) -> list[bool]:
            if len(held) < 2 or held[0][1].layout is not held[1][1].layout:
                return [False] * len(held)
            cache: KeyValueCache | None = source.memory
            if cache is None:  # just revoked
                return [False, False]
            arena = self._arenas.arena(id(held[0][1].layout), max(room, shared))
            lease.memory = cache.copied(min(shared, cache.seen), arena)
            return [True, True]

        copied = self._service.turns([lease, source], copy)
        if not copied.get(lease):
            return 0
        if best in self._entries:
            self._entries.remove(best)
            self._entries.append(best)
        return shared

    def clear(self) -> None:
        """Drop all entries."""
        self.shrink(0)


def _move_out(text: CachedText) -> None:
    """Move the cache from the arena of the running texts, which should stay dense, to memory of exactly its size."""
    cache: KeyValueCache | None = text.lease.memory
    if cache is None:
        return  # just revoked
    text.lease.memory = cache.alone(len(text.tokens))


def _common(one: tuple[int, ...], other: tuple[int, ...], most: int) -> int:
    length = min(len(one), len(other), most)
    if one[:length] == other[:length]:
        return length
    low, high = 0, length  # the first `low` agree, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
