"""Keys and values of many texts in one block per layer, so that one operation serves all texts that decode.

In: the new keys and values of a text. Out: what it holds so far. A text's cache is a slot of an arena, and an arena is
held by its caches alone: the slot is free again, and the memory of an arena without caches goes, when nothing refers to
them any more. So what a revoked lease forgets is forgotten here too. A slot is zeroed before another text gets it.

An arena keeps, at each layer, as many rows as run through it: below the lowest adapter that is one. Tensors are
touched by the thread that computes; a cache may be forgotten by any thread.

Shapes: R rows, K key-value heads, T new tokens of one text, S tokens that it holds, d head size.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import torch
from torch import Tensor

SMALLEST_ROOM = 128
"""Tokens: rooms are this times powers of two, so that texts of like length share a block."""


class CacheArena:
    """Slots for texts of at most `room` tokens each."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # [slots, R, K, room, d]
        self._used: set[int] = set()
        self._dirty: set[int] = set()  # free, with what the last text left
        self._expected = 0
        self._lock = threading.Lock()

    def begin(self) -> int:
        """A free slot, the lowest."""
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
        """The slot is free."""
        with self._lock:
            self._used.remove(slot)
            self._dirty.add(slot)
            self._expected = 0

    def expect(self, more: int) -> None:
        """So many texts are about to begin: a block that must grow grows for all of them at once."""
        self._expected = self.slots + more

    @property
    def slots(self) -> int:
        """The highest slot in use, plus one."""
        with self._lock:
            return max(self._used, default=-1) + 1

    @property
    def layers(self) -> dict[int, tuple[Tensor, Tensor]]:
        """By index of the layer, as far as they were written: keys and values [slots or more, R, K, room, d]."""
        return self._layers

    def block(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [slots or more, R, K, room, d] of a layer, with a place for every slot in use.

        `key` and `value` [R, K, any, d] say of what shape and kind.
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
    """Keys and values of one text at every layer; `seen` tokens are whole."""

    def __init__(self, arena: CacheArena) -> None:
        self.arena = arena
        self.slot = arena.begin()
        self.seen = 0

    def __del__(self) -> None:
        self.arena.end(self.slot)

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [R, K, S, d] of the text, after adding those of T new tokens [R, K, T, d].

        They count as seen only when `seen` is raised, after the pass: one that failed can be run again.
        """
        keys, values = self.arena.block(layer, key, value)
        end = self.seen + key.shape[2]
        keys[self.slot, :, :, self.seen : end] = key
        values[self.slot, :, :, self.seen : end] = value
        return keys[self.slot, :, :, :end], values[self.slot, :, :, :end]

    def copied(self, tokens: int, arena: CacheArena) -> KeyValueCache:
        """A cache of its own with the first `tokens` tokens of this one, in a slot of `arena`."""
        copy = KeyValueCache(arena)
        with torch.inference_mode():
            for layer, (keys, values) in tuple(self.arena.layers.items()):
                new_keys, new_values = arena.block(layer, keys[self.slot], values[self.slot])
                new_keys[copy.slot, :, :, :tokens] = keys[self.slot, :, :, :tokens]
                new_values[copy.slot, :, :, :tokens] = values[self.slot, :, :, :tokens]
        copy.seen = tokens
        return copy

    def alone(self, tokens: int) -> KeyValueCache:
        """A cache of its own with the first `tokens` tokens of this one, in memory of just its size."""
        arena = CacheArena(tokens)
        copy = KeyValueCache(arena)
        with torch.inference_mode():
            for layer, held in self.arena.layers.items():
                keys, values = (each[self.slot : self.slot + 1, :, :, :tokens].clone() for each in held)
                arena.layers[layer] = keys, values
        copy.seen = tokens
        return copy


class CacheArenas:
    """The arenas of all live sets that are computed with, one for each size of room. Used by one thread."""

    def __init__(self, most: int) -> None:
        """`most`: tokens; no room is larger."""
        self._most = most
        # By the layout's id too: texts on different live sets run in different rows. A layout outlives its caches,
        # for whoever holds a cache holds the lease on its live set.
        self._known: WeakValueDictionary[tuple[int, int], CacheArena] = WeakValueDictionary()

    def room(self, tokens: int) -> int:
        """Tokens that a text of `tokens` gets room for: SMALLEST_ROOM, doubled as often as it takes."""
        room = SMALLEST_ROOM
        while room < tokens:
            room *= 2
        return max(tokens, min(room, self._most))

    def arena(self, layout: int, tokens: int) -> CacheArena:
        """Where texts of `tokens` tokens lie that are computed with the layout of this id."""
        room = self.room(tokens)
        known = self._known.get((layout, room))
        if known is None:
            known = self._known[layout, room] = CacheArena(room)
        return known

    def fitting(self, cache: KeyValueCache | None, layout: int, tokens: int) -> KeyValueCache:
        """`cache` itself if it has room for `tokens` tokens, else one that has, with what `cache` holds."""
        if cache is None:
            return KeyValueCache(self.arena(layout, tokens))
        if cache.arena.room >= tokens:
            return cache
        return cache.copied(cache.seen, self.arena(layout, tokens))


def _rounded(slots: int) -> int:
    """Some more than are needed, at most a quarter: blocks are seldom made anew."""
    step = max(1, slots // 4)
    return -(-slots // step) * step


def _resized(old: Tensor | None, like: Tensor, slots: int, room: int) -> Tensor:
    rows, heads, _, size = like.shape
    new = torch.zeros((slots, rows, heads, room, size), dtype=like.dtype, device=like.device)
    if old is not None:
        kept = min(slots, len(old))
        new[:kept] = old[:kept]
    return new
