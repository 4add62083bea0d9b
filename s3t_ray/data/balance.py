"""Measures how evenly a run's records are distributed over its slices and shards, and advises how to improve it.

In: records by place. Out: `Balance`. Pure. A hash spreads records evenly, but the result is uneven if people have many
records each (`partition_by: subject`), or if there are few records for many slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from s3t_ray.config.schema import Config
from s3t_ray.data.partition import Place, place
from s3t_ray.data.records import Record

Hashed = tuple[str, str | None]
"""What the partition hashes of a record: ("", subject), or (id, None)."""
UNEVEN = 1.25
"""Ratio of the largest shard to the mean above which it is reported."""


@dataclass(frozen=True)
class Balance:
    """The distribution of records over slices and shards, without held-out records."""

    smallest_slice: int
    largest_slice: int
    empty_slices: int
    smallest_shard: int
    largest_shard: int
    empty_shards: int
    mean_shard: float

    @property
    def unevenness(self) -> float:
        """The largest shard divided by the mean. Training takes as long as the largest shard."""
        return self.largest_shard / self.mean_shard if self.mean_shard else 1.0

    @property
    def is_uneven(self) -> bool:
        """Whether another seed may help."""
        return self.empty_slices > 0 or self.unevenness >= UNEVEN

    def advice(self, config: Config) -> list[str]:
        """One line per problem, with advice; empty if the records are evenly distributed."""
        lines = []
        by_person = config.data.partition_by == "subject"
        if self.empty_slices:
            lines.append(
                f"{self.empty_slices:,} of {config.shards * config.slices:,} slices "
                + ("is empty" if self.empty_slices == 1 else "are empty")
                + (f", including {_shards(self.empty_shards)}" if self.empty_shards else "")
                + ": use fewer slices or shards, or another seed"
                + (", or data.partition_by: record" if by_person else "")
            )
        if self.unevenness >= UNEVEN and config.shards > 1:
            lines.append(
                f"the shards are uneven: {self.smallest_shard:,} to {self.largest_shard:,} records, the largest "
                f"{self.unevenness:.2f} times the mean; another seed may spread them better (`s3t plan` looks for one)"
                + (", or data.partition_by: record" if by_person else ", or fewer shards")
            )
        return lines


def better_seed(
    names: Mapping[Hashed, int], config: Config, secret: bytes | None, tries: int = 100
) -> tuple[int, Balance] | None:
    """The seed below `tries` with the fewest empty slices and, among those, the smallest largest shard.

    `names`: the number of records per hashed part; `secret`: see `place`. None: no seed is better than the config's.
    """
    best: tuple[int, Balance] | None = None
    for seed in [config.seed, *(seed for seed in range(tries) if seed != config.seed)]:
        tried = config.model_copy(update={"seed": seed})
        by_place: Counter[Place] = Counter()
        for name, count in names.items():
            by_place[place(*name, tried, secret)] += count
        found = balance(config.shards, config.slices, by_place)
        if best is None or (found.empty_slices, found.unevenness) < (best[1].empty_slices, best[1].unevenness):
            best = (seed, found)
    return None if best is None or best[0] == config.seed else best


def hashed(record: Record, config: Config) -> Hashed:
    """The part of `record` that the partition hashes."""
    by_subject = config.data.partition_by == "subject" and record.subject is not None
    return ("", record.subject) if by_subject else (record.id, None)


def balance(shards: int, slices: int, records: Mapping[Place, int]) -> Balance:
    """The balance of `records` over all places of a run, including empty ones."""
    by_slice = [records.get(Place(shard, index), 0) for shard in range(shards) for index in range(slices)]
    by_shard = [sum(by_slice[shard * slices : (shard + 1) * slices]) for shard in range(shards)]
    return Balance(
        smallest_slice=min(by_slice),
        largest_slice=max(by_slice),
        empty_slices=by_slice.count(0),
        smallest_shard=min(by_shard),
        largest_shard=max(by_shard),
        empty_shards=by_shard.count(0),
        mean_shard=sum(by_shard) / shards,
    )


def _shards(count: int) -> str:
    return "an entire shard" if count == 1 else f"{count:,} entire shards"
