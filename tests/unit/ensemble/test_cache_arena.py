"""Slots of many texts in one block: kept apart, zeroed for the next text, freed with the last; attention over them."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
import torch
from torch import Tensor

from s3t_ray.ensemble.batching import packed_pass
from s3t_ray.ensemble.batching.cache_arena import SMALLEST_ROOM, CacheArena, CacheArenas, KeyValueCache

ROWS, KV_HEADS, SIZE, SHARED = 2, 2, 4, 3
LAYOUT, MOST = 1, 300


def tokens(count: int, seed: int) -> Tensor:
    """Keys, or values, of so many tokens: [R, K, T, d]."""
    return torch.randn((ROWS, KV_HEADS, count, SIZE), generator=torch.Generator().manual_seed(seed))


def held(cache: KeyValueCache, layer: int = 0) -> Tensor:
    """The keys that a cache has seen: [R, K, S, d]."""
    return cache.arena.layers[layer][0][cache.slot, :, :, : cache.seen]


def filled(arena: CacheArena, count: int, seed: int) -> KeyValueCache:
    cache = KeyValueCache(arena)
    cache.append(0, tokens(count, seed), -tokens(count, seed))
    cache.seen = count
    return cache


def test_the_lowest_free_slot_is_given_and_is_empty() -> None:
    arena = CacheArena(SMALLEST_ROOM)
    caches = [filled(arena, 5, seed) for seed in range(3)]
    assert [cache.slot for cache in caches] == [0, 1, 2] and arena.slots == 3
    del caches[1]
    next_one = KeyValueCache(arena)
    assert next_one.slot == 1
    keys, values = arena.layers[0]
    assert not keys[1].any() and not values[1].any(), "the next text finds nothing of the last"
    assert torch.equal(held(caches[0]), tokens(5, 0)) and torch.equal(held(caches[1]), tokens(5, 2))
    del next_one, caches[1]
    assert arena.slots == 1


def test_a_block_grows_and_shrinks_and_keeps_what_is_in_use() -> None:
    arena = CacheArena(SMALLEST_ROOM)
    caches = [filled(arena, 3, seed) for seed in range(40)]
    assert 40 <= len(arena.layers[0][0]) <= 50
    for seed, cache in enumerate(caches):
        assert torch.equal(held(cache), tokens(3, seed))
    del caches[2:], cache
    filled(arena, 1, 99)
    assert len(arena.layers[0][0]) <= 6
    assert torch.equal(held(caches[0]), tokens(3, 0)) and torch.equal(held(caches[1]), tokens(3, 1))


def test_a_text_that_outgrows_its_room_moves() -> None:
    arenas = CacheArenas(MOST)
    cache = arenas.fitting(None, LAYOUT, 5)
    cache.append(0, tokens(SMALLEST_ROOM, 1), tokens(SMALLEST_ROOM, 2))
    cache.seen = SMALLEST_ROOM
    assert arenas.fitting(cache, LAYOUT, SMALLEST_ROOM) is cache
    moved = arenas.fitting(cache, LAYOUT, SMALLEST_ROOM + 1)
    assert moved.arena.room == 2 * SMALLEST_ROOM and moved.seen == SMALLEST_ROOM
    assert torch.equal(held(moved), tokens(SMALLEST_ROOM, 1))
    assert arenas.room(2 * SMALLEST_ROOM + 1) == MOST, "no room is larger than the memory"


def test_texts_on_other_live_sets_lie_elsewhere_and_memory_goes_with_the_last_text() -> None:
    arenas = CacheArenas(MOST)
    one, other, elsewhere = (arenas.fitting(None, layout, 5) for layout in (1, 1, 2))
    assert one.arena is other.arena and one.arena is not elsewhere.arena
    for cache in (one, other):
        cache.append(0, tokens(2, 0), tokens(2, 0))
    block = weakref.ref(one.arena.layers[0][0])
    del one, cache
    gc.collect()
    assert block() is not None
    del other
    gc.collect()
    assert block() is None


def slow_attention(query: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
    """[R, T, H, d] of the last T tokens of one text, from queries [R, H, T, d] and all S keys [R, K, S, d]."""
    _, _, count, size = query.shape
    seen = keys.shape[2]
    keys, values = (each.repeat_interleave(SHARED, dim=1) for each in (keys, values))
    scores = query @ keys.transpose(2, 3) / size**0.5
    at, key_at = torch.arange(seen - count, seen)[:, None], torch.arange(seen)[None, :]
    unseen = (key_at > at) | (key_at <= at - (window or seen))
    return (torch.softmax(scores.masked_fill(unseen, -torch.inf), dim=-1) @ values).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 7])
def test_texts_attend_as_if_each_were_alone(window: int | None) -> None:
    """Random texts that read, decode, come and go; some decode side by side, with free slots between them or not."""
    dice = random.Random(3)
    arenas = CacheArenas(MOST)
    texts: dict[KeyValueCache, tuple[Tensor, Tensor]] = {}
    together = apart = 0
    for step in range(100):
        texts = {cache: kept for cache, kept in texts.items() if dice.random() >= 0.04}
        texts |= {
            arenas.fitting(None, LAYOUT, 60): (tokens(0, 0), tokens(0, 0)) for _ in range(dice.choice([0, 0, 0, 1]))
        }
        work = sorted(
            ((cache, dice.randrange(2, 9) if cache.seen == 0 else 1) for cache in texts),
            key=lambda each: (each[1] > 1, each[0].slot),
        )
        if not work:
            continue
        parts, end = [], 0
        for cache, count in work:
            parts.append(packed_pass._Text(cache, end, end + count))
            end += count
        key, value = tokens(end, 2 * step), tokens(end, 2 * step + 1)
        query = torch.randn((ROWS, KV_HEADS * SHARED, end, SIZE), generator=torch.Generator().manual_seed(step))
        planned = packed_pass._planned(parts, query.device)
        together += sum(group.in_order for group in planned.decoding)
        apart += sum(not group.in_order for group in planned.decoding)
        made = packed_pass._packed(planned, 0, query, key, value, None, window)
        for part in parts:
            own = slice(part.start, part.end)
            keys, values = texts[part.cache]
            keys, values = torch.cat([keys, key[:, :, own]], 2), torch.cat([values, value[:, :, own]], 2)
            torch.testing.assert_close(made[:, own], slow_attention(query[:, :, own], keys, values, window))
            texts[part.cache] = keys, values
            part.cache.seen += part.end - part.start
        del parts, part, work, cache, planned
    assert min(together, apart) >= 5, (together, apart)
