"""Counts a run's records per slice, and those with a labelled token.

In: records with their places, as they are read. Out: the same records, counted; notes, and an error if a shard would
learn nothing. Pure except for the notes. Never uses the content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from s3t_ray.config.schema import Config
from s3t_ray.data.balance import Balance, balance
from s3t_ray.data.partition import HOLDOUT, Place
from s3t_ray.data.records import Record
from s3t_ray.errors import DataError

_MOST_NAMED = 20


class Taught:
    """Counts the records of one pass over the data."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._records: Counter[Place] = Counter()
        self._nothing: Counter[Place] = Counter()

    def count(self, placed: Iterable[tuple[Place, Record]]) -> Iterator[tuple[Place, Record]]:
        """Count `placed` and pass it through unchanged."""
        for spot, record in placed:
            self._records[spot] += 1
            self._nothing[spot] += not record.teaches
            yield spot, record

    @property
    def records(self) -> int:
        """The number of records in the shards, without held-out records."""
        return sum(count for spot, count in self._records.items() if spot != HOLDOUT)

    @property
    def nothing(self) -> int:
        """The number of these records without a labelled token within task.max_tokens."""
        return sum(count for spot, count in self._nothing.items() if spot != HOLDOUT)

    @property
    def sizes(self) -> list[list[int]]:
        """The number of records by shard and slice, without held-out records."""
        shards, slices = self._config.shards, self._config.slices
        return [[self._records[Place(shard, index)] for index in range(slices)] for shard in range(shards)]

    @property
    def balance(self) -> Balance:
        """The distribution of the records over slices and shards."""
        return balance(self._config.shards, self._config.slices, self._records)

    def check_shards(self) -> None:
        """Raise DataError if all records of a shard lack labelled tokens. Only valid if the places are the run's."""
        if idle := self.idle_shards():
            raise self._too_long(f"shard {_named(idle)} would learn nothing: its records")

    def tell(self, note: Callable[[str], None]) -> None:
        """Report uneven slices and records without a labelled token. Raises DataError if nothing would be learned."""
        if not self.records:
            raise DataError(
                f"no record is left to train on: all {sum(self._records.values()):,} are held out",
                f"use more records, or a smaller data.holdout (now {self._config.data.holdout:g})",
            )
        if self.nothing == self.records:
            raise self._too_long(f"nothing would be learned: all {self.records:,} records")
        if self.nothing:
            note(
                f"{self.nothing:,} of {self.records:,} records teach nothing: no response within task.max_tokens "
                f"({self._config.task.max_tokens})"
            )
        for line in self.balance.advice(self._config):
            note(line)

    def _too_long(self, whose: str) -> DataError:
        return DataError(
            f"{whose} have no response within task.max_tokens ({self._config.task.max_tokens})",
            "raise task.max_tokens, or remove the records whose prompts fill it",
        )

    def idle_shards(self) -> list[int]:
        """The shards that have records, but none with a labelled token."""
        have: Counter[int] = Counter()
        idle: Counter[int] = Counter()
        for spot, count in self._records.items():
            have[spot.shard] += count
            idle[spot.shard] += self._nothing[spot]
        return sorted(shard for shard, count in have.items() if shard != HOLDOUT.shard and count == idle[shard])


def _named(shards: Sequence[int]) -> str:
    return ", ".join(str(shard) for shard in shards[:_MOST_NAMED])
