"""How the records of a run fall into its slices, and how many of them teach anything.

In: records with their places, as they are read. Out: the same records, counted; notes, and a refusal of a shard that
would learn nothing. Pure but for the notes. Must never look at content.
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
    """Counts the records of one reading."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._records: Counter[Place] = Counter()
        self._nothing: Counter[Place] = Counter()

    def count(self, placed: Iterable[tuple[Place, Record]]) -> Iterator[tuple[Place, Record]]:
        """`placed`, unchanged."""
        for spot, record in placed:
            self._records[spot] += 1
            self._nothing[spot] += not record.teaches
            yield spot, record

    @property
    def records(self) -> int:
        """Records of the shards; held-out ones are not in it."""
        return sum(count for spot, count in self._records.items() if spot != HOLDOUT)

    @property
    def nothing(self) -> int:
        """Those of them with nothing to learn within task.max_tokens."""
        return sum(count for spot, count in self._nothing.items() if spot != HOLDOUT)

    @property
    def sizes(self) -> list[list[int]]:
        """Records by shard and slice; held-out ones are not in it."""
        shards, slices = self._config.shards, self._config.slices
        return [[self._records[Place(shard, index)] for index in range(slices)] for shard in range(shards)]

    @property
    def balance(self) -> Balance:
        """How the records fall."""
        return balance(self._config.shards, self._config.slices, self._records)

    def check_shards(self) -> None:
        """Raise DataError for a shard whose records teach nothing; only where places are those of the run itself."""
        if idle := self.idle_shards():
            raise self._too_long(f"shard {_named(idle)} would learn nothing: its records")

    def tell(self, note: Callable[[str], None]) -> None:
        """Say what is uneven or teaches nothing. Raises DataError where nothing would be learned at all."""
        if not self.records:
            raise DataError(
                f"no record is left to train on: all {sum(self._records.values()):,} are held out",
                f"give more records, or a smaller data.holdout (it is {self._config.data.holdout:g})",
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
        """Shards that have records, none of which teaches anything."""
        have: Counter[int] = Counter()
        idle: Counter[int] = Counter()
        for spot, count in self._records.items():
            have[spot.shard] += count
            idle[spot.shard] += self._nothing[spot]
        return sorted(shard for shard, count in have.items() if shard != HOLDOUT.shard and count == idle[shard])


def _named(shards: Sequence[int]) -> str:
    return ", ".join(str(shard) for shard in shards[:_MOST_NAMED])
