"""Prompts that begin as an earlier one did are not read twice.

In: the caches of generations that ended, each still on its lease. Out: the longest beginning that one of them shares
with a new prompt. What a lease remembers goes when a stage of it is pruned, so nothing that a struck stage computed is
ever continued. An entry on a live set that is no longer in service is dropped, for no new generation can use it.

Caches of different callers are shared: how fast an answer begins can tell a caller that somebody sent the same
beginning lately. Nothing else of a prompt gets out.
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
"""Tokens: a shorter beginning is read again, which costs less than the copy."""


@dataclass
class CachedText:
    """`tokens` are those that the cache in the lease's memory has seen."""

    tokens: tuple[int, ...]
    lease: Lease[LiveSet]


class PrefixCache:
    """Used by one thread. `capacity` in tokens, over all entries."""

    def __init__(self, service: LiveService[LiveSet], arenas: CacheArenas, capacity: int) -> None:
        self._service = service
        self._arenas = arenas
        self._capacity = capacity
        self._entries: list[CachedText] = []  # the one used last stands last

    def keep(self, text: CachedText) -> None:
        """Take over the lease of a generation that has ended."""
        if len(text.tokens) < SHORTEST:
            self._service.end(text.lease)
            return
        with suppress(Revoked):  # then the lease remembers nothing, and `shrink` drops it
            self._service.turn(text.lease, lambda _: _move_out(text))
        self._entries.append(text)
        self.shrink(self._capacity)

    def shrink(self, tokens: int) -> None:
        """Drop what was not used for longest until at most `tokens` are kept."""
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
        """Give `lease` a cache that holds the longest known beginning of `prompt`; its length in tokens.

        At least one token of the prompt is left to read. `running` may lend theirs too.
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
            if cache is None:  # revoked this moment
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
        """Drop everything."""
        self.shrink(0)


def _move_out(text: CachedText) -> None:
    """Out of the arena of those that run, which shall stay dense, into memory of its own and of its size."""
    cache: KeyValueCache | None = text.lease.memory
    if cache is None:
        return  # revoked this moment
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
