"""Which records a membership audit tests: samples of the run's own records, and submitted ones.

In: an open run, the models to audit, a file of records. Out: contents, each with the shard whose model is tested on it,
and what the run knows about the submitted records. Reads only. Must never choose by content: the same seed chooses the
same records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from s3t_ray.data.partition import HOLDOUT, Place
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.records import Record
from s3t_ray.data.slices import Row, read_slice
from s3t_ray.errors import ConfigError, DataError, StoreError
from s3t_ray.ledger.values import SliceState
from s3t_ray.run.input.placing import place_in
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.run.shard_view import view_shard

T = TypeVar("T")

MOST_MODELS = 16
"""Maximum number of audited shards; those of named records come first."""


@dataclass(frozen=True)
class LiveModel:
    """The model that a shard serves: its stages, and the slices that they learned."""

    shard: int
    chain: tuple[str, ...]
    slices: tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """A record, and the shard whose model is tested on it."""

    shard: int
    content: str


@dataclass(frozen=True)
class KnownRecords:
    """What the run knows about the submitted records, as counts. See `NamedRecords`."""

    given: int
    retained: int
    changed: int
    seen: int
    deleted: int
    unknown: int
    held_out: int
    equal_elsewhere: int


@dataclass(frozen=True)
class Chosen:
    """The records to test. `named` excludes held-out records; for some of it there may be no model."""

    never_seen: tuple[str, ...]
    retained: tuple[Asked, ...]
    named: tuple[Asked, ...]
    known: KnownRecords


def read_named(run: Run, path: Path) -> tuple[Record, ...]:
    """The records of a file in the format of the run's data, including ids and subjects.

    DataError: the file is missing, empty or malformed, or repeats an id.
    """
    if not path.is_file():  # otherwise the name would be looked up on a hub
        raise DataError(f"{path}: no such file", "give a file of records in the format of the run's data")
    changes = {
        "path": str(path),
        "format": "auto",
        "holdout_path": None,
        "holdout_split": None,
        "on_malformed": "refuse",
    }
    named = tuple(read_records(run.config.data.model_copy(update=changes), run.config.task))
    repeated = [name for name, times in Counter(record.id for record in named).items() if times > 1]
    if repeated:
        raise DataError(f"{path}: id {repeated[0]!r} is in more than one record", "remove the repeated records")
    return named


def live_models(run: Run, named: Sequence[Record], seed: int) -> tuple[LiveModel, ...]:
    """The models to audit, by shard: all live ones, or those of the named records and some others.

    ConfigError: no shard has one.
    """
    live = {}
    for shard in range(run.row.shards):
        view = view_shard(run, shard)
        deepest = view.plan.deepest(view.live)
        if deepest is not None:
            live[shard] = LiveModel(shard, deepest.chain, deepest.slices)
    if not live:
        raise ConfigError("no shard has a live model: there is nothing to audit", "run `s3t train` with its config")
    asked = {place_in(run, record).shard for record in named} & live.keys()
    others = sorted(live.keys() - asked)
    Random(seed).shuffle(others)
    return tuple(live[shard] for shard in sorted([*asked, *others[: max(0, MOST_MODELS - len(asked))]]))


def choose(run: Run, models: Sequence[LiveModel], named: Sequence[Record], sample: int, seed: int) -> Chosen:
    """At most `sample` never-seen and as many retained records, and the named ones.

    Retained records come from the slices that `models` learned. Both samples exclude named records. DataError: a sample
    is empty, or named records have other subjects than in the run, so they would be tested on the wrong shard.
    """
    learned = {Place(model.shard, index) for model in models for index in model.slices}
    wanted = {record.id: record for record in named}
    places = {record.id: place_in(run, record) for record in named}
    texts = {record.content for record in named}
    visited = {HOLDOUT, *learned, *places.values()}
    never_seen: _Reservoir[str] = _Reservoir(sample, Random(seed))
    retained: _Reservoir[Asked] = _Reservoir(sample, Random(seed))
    found: dict[str, Place] = {}
    changed = equal_elsewhere = 0
    for state in run.ledger.slices():
        spot = Place(state.shard, state.slice)
        if spot not in visited:
            continue
        for row in _rows(run, state):
            own = wanted.get(row.id)
            if own is not None:
                found[row.id] = spot
                changed += spot != HOLDOUT and own.content != row.content
            elif spot == HOLDOUT:
                never_seen.add(row.content)
            elif spot in learned:
                retained.add(Asked(state.shard, row.content))
                equal_elsewhere += row.content in texts
    if not never_seen.kept:
        raise DataError(
            f"run {run.row.name!r} has no held-out records to compare with",
            "set data.holdout, data.holdout_path or data.holdout_split and start a new run",
        )
    if not retained.kept:
        raise DataError(f"run {run.row.name!r} retains no record that a live model learned", "train the run first")
    unknown = _unknown(run, [record for record in named if record.id not in found])
    _check_places(run, places, found, unknown)
    held_out = {name for name, spot in places.items() if found.get(name, spot) == HOLDOUT}
    known = KnownRecords(
        given=len(named),
        retained=len(found.keys() - held_out),
        changed=changed,
        seen=sum(spot in learned for spot in found.values()),
        deleted=len(wanted.keys() - found.keys() - unknown - held_out),
        unknown=len(unknown - held_out),
        held_out=len(held_out),
        equal_elsewhere=equal_elsewhere,
    )
    asked = tuple(Asked(places[record.id].shard, record.content) for record in named if record.id not in held_out)
    return Chosen(tuple(never_seen.kept), tuple(retained.kept), asked, known)


def _rows(run: Run, state: SliceState) -> Iterator[Row]:
    """The retained rows of a slice."""
    if state.file is None:
        raise StoreError(
            f"slice {state.slice} of shard {state.shard} has no file",
            "run `s3t train` with its config again",
        )
    tombstones = run.ledger.tombstones(state.shard, state.slice)
    with scratch_folder(run, "audit") as folder:
        for row in read_slice(run.store.fetch(state.file, folder)):
            if row.digest not in tombstones:
                yield row


def _unknown(run: Run, missing: Sequence[Record]) -> frozenset[str]:
    """Ids in `missing` that the run never had."""
    if not missing:
        return frozenset()
    names = {run.keys.id_hmac(record.id): record.id for record in missing}
    preview = run.ledger.preview(tuple(names))
    if preview.records:
        raise _misplaced(preview.records)
    return frozenset(names[name] for name in preview.unknown_ids)


def _check_places(run: Run, places: Mapping[str, Place], found: Mapping[str, Place], unknown: frozenset[str]) -> None:
    """DataError if records would be tested on the wrong shard, where a learned record looks like an unseen one.

    A deleted record's row is gone, but receipts still show which slices lost records.
    """
    lost = {Place(hit.shard, hit.slice) for deletion in run.ledger.deletions() for hit in deletion.receipt.hits}
    # Records of a separate held-out file are held out, wherever their ids would place them.
    anywhere = run.config.data.holdout_path is not None or run.config.data.holdout_split is not None
    wrong = 0
    for name, spot in places.items():
        possible = {found[name]} if name in found else lost
        if name not in unknown and spot not in possible and not (anywhere and HOLDOUT in possible):
            wrong += 1
    if wrong:
        raise _misplaced(wrong)


def _misplaced(records: int) -> DataError:
    return DataError(
        f"{records} of the named records are in other slices than their ids and subjects say",
        "give each record the id and the subject that it had in the run's data",
    )


class _Reservoir(Generic[T]):
    """Reservoir sampling: every item has the same probability of being in the sample."""

    def __init__(self, size: int, random: Random) -> None:
        self.kept: list[T] = []
        self._size = size
        self._random = random
        self._came = 0

    def add(self, item: T) -> None:
        self._came += 1
        if len(self.kept) < self._size:
            self.kept.append(item)
        elif (slot := self._random.randrange(self._came)) < self._size:
            self.kept[slot] = item
