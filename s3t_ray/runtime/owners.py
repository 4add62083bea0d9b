"""What the scheduler needs of the shards' owners and of the serving replicas, as interfaces.

`actors.py` has the real ones, on Ray; the tests' ones run in the same process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from s3t_ray.runtime.view import ShardView


class Shards(Protocol):
    """The shard owners, by index; the held-out data is shard -1."""

    def views(self) -> dict[int, ShardView]: ...

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        """Prune these shards side by side; their views after it."""
        ...

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        """Begin to purge a shard; returns at once."""
        ...

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        """Purges that ended since the last call, with the view after each, or what stopped it."""
        ...


class Replicas(Protocol):
    """The serving replicas."""

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        """Have every replica confirm the live set; one that cannot is taken out of service.

        Returns the replicas that serve less than this set, because they could not load a stage of it.
        """
        ...
