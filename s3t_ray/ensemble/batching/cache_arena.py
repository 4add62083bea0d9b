"""Stores the keys and values of many texts in one block per layer, so that one operation serves all decoding texts.

In: the new keys and values of a text. Out: all of its keys and values so far. A text's cache is a slot in an arena.
Only caches reference an arena: a slot becomes free when its cache is garbage-collected, and an arena is freed with its
last cache. So dropping a revoked lease also releases its cache. A slot is zeroed before another text reuses it.

At each layer, an arena has as many rows as run through that layer; below the lowest adapter that is one. Only the
computing thread accesses the tensors; any thread may drop a cache.

Shapes: R rows, K key-value heads, T new tokens of one text, S tokens in its cache, d head size.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import torch
from torch import Tensor

SMALLEST_ROOM = 128
"""In tokens. Slot sizes are this times a power of two, so that texts of similar length share a block."""


class CacheArena:
    """Slots for texts of at most `room` tokens each."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # [slots, R, K, room, d]
        self._used: set[int] = set()
        self._dirty: set[int] = set()  # free slots that still hold data of their last text
        self._expected = 0
        self._lock = threading.Lock()

    def begin(self) -> int:
        """Reserve and return the lowest free slot, zeroed."""
        with self._lock:
            slot = next(slot for slot in range(len(self._used) + 1) if slot not in self._used)
            self._used.add(slot)
            dirty = slot in self._dirty
            self._dirty.discard(slot)
        if dirty:
            with torch.inference_mode():
                for keys, values in self._layers.values():
                    if slot < len(keys):
                        keys[slot].zero_()
                        values[slot].zero_()
        return slot

    def end(self, slot: int) -> None:
        """Release a slot."""
        with self._lock:
            self._used.remove(slot)
            self._dirty.add(slot)
            self._expected = 0

    def expect(self, more: int) -> None:
        """Announce `more` new texts, so that a block grows once for all of them."""
        self._expected = self.slots + more

    @property
    def slots(self) -> int:
        """The highest slot in use, plus one."""
        with self._lock:
            return max(self._used, default=-1) + 1

    @property
    def layers(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Layer index -> keys and values [slots or more, R, K, room, d], for the layers written so far."""
        return self._layers

    def block(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values [slots or more, R, K, room, d] of a layer, large enough for every slot in use.

        `key` and `value` [R, K, any, d] give the shape, dtype and device.
        """
        needed = max(self.slots, self._expected)
        known = self._layers.get(layer)
        if known is None or not needed <= len(known[0]) <= 2 * _rounded(needed):
            count = _rounded(needed)
            known = (
                _resized(None if known is None else known[0], key, count, self.room),
                _resized(None if known is None else known[1], value, count, self.room),
            )
            self._layers[layer] = known
        return known


class KeyValueCache:
    """The keys and values of one text at every layer. `seen` tokens are complete."""

    def __init__(self, arena: CacheArena) -> None:
        self.arena = arena
        self.slot = arena.begin()
        self.seen = 0

    def __del__(self) -> None:
        self.arena.end(self.slot)

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T new tokens [R, K, T, d]; return all of the text's [R, K, S, d].

        The caller increases `seen` after the pass, so a pass that failed can be repeated.
        """
        keys, values = self.arena.block(layer, key, value)
        end = self.seen + key.shape[2]
        keys[self.slot, :, :, self.seen : end] = key
        values[self.slot, :, :, self.seen : end] = value
        return keys[self.slot, :, :, :end], values[self.slot, :, :, :end]

    def copied(self, tokens: int, arena: CacheArena) -> KeyValueCache:
        """A copy of the first `tokens` tokens, in a slot of `arena`."""
        copy = KeyValueCache(arena)
        with torch.inference_mode():
            for layer, (keys, values) in tuple(self.arena.layers.items()):
                new_keys, new_values = arena.block(layer, keys[self.slot], values[self.slot])
                new_keys[copy.slot, :, :, :tokens] = keys[self.slot, :, :, :tokens]
                new_values[copy.slot, :, :, :tokens] = values[self.slot, :, :, :tokens]
        copy.seen = tokens
        return copy

    def alone(self, tokens: int) -> KeyValueCache:
        """A copy of the first `tokens` tokens, in an arena of exactly that size."""
        arena = CacheArena(tokens)
        copy = KeyValueCache(arena)
        with torch.inference_mode():
            for layer, held in self.arena.layers.items():
                keys, values = (each[self.slot : self.slot + 1, :, :, :tokens].clone() for each in held)
                arena.layers[layer] = keys, values
        copy.seen = tokens
        return copy


class CacheArenas:
    """The arenas of all live sets in use, one per slot size. Used by one thread."""

    def __init__(self, most: int) -> None:
        """`most`: the maximum slot size in tokens."""
        self._most = most
        # Keyed by the layout's id as well, because texts on different live sets run in different rows. A layout
        # outlives its caches: whoever holds a cache also holds the lease on its live set.
        self._known: WeakValueDictionary[tuple[int, int], CacheArena] = WeakValueDictionary()

    def room(self, tokens: int) -> int:
        """The slot size for a text of `tokens` tokens: SMALLEST_ROOM, doubled until it fits."""
        room = SMALLEST_ROOM
        while room < tokens:
            room *= 2
        return max(tokens, min(room, self._most))

    def arena(self, layout: int, tokens: int) -> CacheArena:
        """The arena for texts of `tokens` tokens that use the layout with this id."""
        room = self.room(tokens)
        known = self._known.get((layout, room))
        if known is None:
            known = self._known[layout, room] = CacheArena(room)
        return known

    def fitting(self, cache: KeyValueCache | None, layout: int, tokens: int) -> KeyValueCache:
        """`cache` if it has room for `tokens` tokens, otherwise a larger copy of it."""
        if cache is None:
            return KeyValueCache(self.arena(layout, tokens))
        if cache.arena.room >= tokens:
            return cache
        return cache.copied(cache.seen, self.arena(layout, tokens))


def _rounded(slots: int) -> int:
    """`slots` rounded up by at most a quarter, so that blocks are rarely reallocated."""
    step = max(1, slots // 4)
    return -(-slots // step) * step


def _resized(old: Tensor | None, like: Tensor, slots: int, room: int) -> Tensor:
    rows, heads, _, size = like.shape
    new = torch.zeros((slots, rows, heads, room, size), dtype=like.dtype, device=like.device)
    if old is not None:
        kept = min(slots, len(old))
        new[:kept] = old[:kept]
    return new
