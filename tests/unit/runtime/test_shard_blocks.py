"""How shards are dealt to their owners."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.scheduler.shard import deal


@given(st.integers(1, 400), st.integers(1, 20))
def test_every_shard_has_one_owner_and_none_much_more_than_another(shards: int, owners: int) -> None:
    blocks = deal(range(-1, shards), owners)
    assert [shard for block in blocks for shard in block] == list(range(-1, shards))
    assert len(blocks) == min(owners, shards + 1)
    sizes = {len(block) for block in blocks}
    assert min(sizes) > 0 and max(sizes) - min(sizes) <= 1
