"""`s3t verify`: recompute every name from the retained data, and replay stages to compare bytes.

Reads only; a replay trains in its own folder, which is deleted afterwards. Reports problems, never repairs them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from s3t_ray.audit.coverage import sealed_since
from s3t_ray.audit.leftovers import left_behind, unfinished
from s3t_ray.audit.replay import beside_the_run, replay_stages
from s3t_ray.audit.seals import checkpoint_problems, hidden_problems
from s3t_ray.data.slice_file import Row, file_sha256, read_slice
from s3t_ray.errors import S3TError
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import SliceState, StageRow, StageState
from s3t_ray.plan.stages import Stage
from s3t_ray.run.integrity.seal_keys import is_announced
from s3t_ray.run.reports import ReplayedStage, Verification
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.store import layout
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.published_stage import PublishedStage

_ROWS_AT_ONCE = 2048


def verify(
    run: Run,
    *,
    replay: int = 0,
    address: str | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Check the run against its retained data; with `replay`, retrain that many live stages from scratch.

    Every problem is a line of the report: a slice whose rows differ from the ledger, a stage whose id does not follow
    from the data, bytes that differ from the published ones, bytes that should be gone.
    """
    since = sealed_since(run)
    views = {shard: view_shard(run, shard) for shard in range(run.row.shards)}
    found = check_data_and_stages(run, views, _check_slice, since, watch)
    problems = [*found.problems, *left_behind(run, views, since), *checkpoint_problems(run, views)]
    watch("stored hidden states: every byte")
    problems += hidden_problems(run)
    trained_again = replay and not found.base_replaced
    replayed = replay_stages(run, views, replay, address, watch, beside_the_run) if trained_again else ()
    return found.reported(run, problems, replayed)


@dataclass(frozen=True)
class DataAndStages:
    """Results of checking the base model, every slice and every live stage."""

    records: int
    stages: int
    problems: tuple[str, ...]
    base_replaced: bool

    def reported(self, run: Run, problems: Iterable[str], replayed: tuple[ReplayedStage, ...]) -> Verification:
        """The report; `problems`: all problems, including those found here."""
        return Verification(
            records=self.records,
            stages=self.stages,
            problems=tuple(problems),
            replayed=replayed,
            excused=tuple(deletion.receipt.request_id for deletion in unfinished(run)),
        )


def check_data_and_stages(
    run: Run,
    views: Mapping[int, ShardView],
    check_slice: Callable[[Run, SliceState], Iterable[str]],
    since: int | None,
    watch: Callable[[str], None],
) -> DataAndStages:
    """Check all of them. `check_slice`: with or without the run's secret; `since`: see `check_stages`."""
    problems: list[str] = []
    watch("base model: every byte")
    replaced = run.base_digest != run.row.base_digest
    if replaced:
        problems.append(f"the base model at {run.base_folder} is not the one that this run was trained on")
    records = 0
    for state in run.ledger.slices():
        watch(f"shard {layout.shard_folder(state.shard)} slice {state.slice}: {state.records} records")
        problems += check_slice(run, state)
        records += state.records
    for view in views.values():
        problems += check_stages(run, view, since, watch)
    watch("the storage: what should be gone")
    return DataAndStages(records, sum(len(view.live) for view in views.values()), tuple(problems), replaced)


def _live(view: ShardView) -> Iterator[Stage]:
    return (stage for stage in view.plan.stages.values() if stage.id in view.live)


def _check_slice(run: Run, state: SliceState) -> list[str]:
    """Compute the slice's digest from its rows' contents and the run's key, not from the digests in the rows."""
    where = f"slice {state.slice} of shard {layout.shard_folder(state.shard)}"
    if state.file is None:
        return [f"{where} has no file"]
    found = _Rows(run, state)
    try:
        with scratch_folder(run, "verify") as folder:
            path = run.store.fetch(state.file, folder)
            if file_sha256(path) != state.file_sha256:
                return [f"{where}: {state.file} was changed: its bytes are not those recorded in the ledger"]
            rows = read_slice(path)
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                found.take(batch)
    except S3TError as error:
        return [f"{where}: {error.problem}"]
    problems = []
    if found.false:
        problems.append(f"{where}: {found.false} rows whose content is not what their digest says")
    if found.strangers:
        problems.append(f"{where}: {found.strangers} rows are of records that the ledger does not have there")
    if found.unlike:
        problems.append(f"{where}: {found.unlike} rows whose content is not the one by which duplicates are found")
    if (found.total.digest(), found.retained) != (state.digest, state.records):
        problems.append(f"{where}: it has {found.retained} retained rows, but the ledger has {state.records} records")
    return problems


class _Rows:
    """Totals over the rows of a slice's file."""

    def __init__(self, run: Run, state: SliceState) -> None:
        self._run = run
        self._state = state
        self._tombstones = run.ledger.tombstones(state.shard, state.slice)
        self.total = LtHash16()  # of retained rows
        self.retained = 0
        self.false = 0  # rows whose content does not match their digest
        self.strangers = 0  # rows of records that the ledger does not have in this slice
        self.unlike = 0  # rows whose content HMAC differs in the ledger, so their duplicates would be wrong

    def take(self, rows: list[Row]) -> None:
        keys, place = self._run.keys, (self._state.shard, self._state.slice)
        names = [keys.id_hmac(row.id) for row in rows]
        digests = [keys.record_digest(row.id, row.content) for row in rows]
        known = self._run.ledger.record_states(names)
        for row, name, digest in zip(rows, names, digests, strict=True):
            record = known.get(name)
            self.false += digest != row.digest
            self.strangers += record is None or (record.shard, record.slice, record.digest) != (*place, digest)
            self.unlike += record is not None and record.content_hmac not in (None, keys.content_hmac(row.content))
        kept = [digest for digest in digests if digest not in self._tombstones]
        self.total.add(kept)
        self.retained += len(kept)


def check_stages(run: Run, view: ShardView, since: int | None, watch: Callable[[str], None]) -> Iterator[str]:
    """Check every live stage of a shard: its row, its manifest, its bytes.

    `since`: see `sealed_since`; None: the reader lacks the run's secret, so seals are not checked.
    """
    rows = {row.id: row for row in run.ledger.stages(view.plan.shard, StageState.LIVE)}
    for stage in _live(view):
        watch(f"stage {stage.id[:12]}: shard {stage.shard}, slices {list(stage.slices)}")
        row = rows.get(stage.id)
        if row is None:
            yield f"{_name(stage)}: a deletion took it out of service during the check"
            continue
        if (row.slices, row.ancestors) != (stage.slices, stage.ancestors) or not rows.keys() >= set(row.ancestors):
            yield f"{_name(stage)}: its row in the ledger names other slices or parents"
        yield from _check_stage(run, view, stage, row, since)
    for name in sorted(view.live - frozenset(view.plan.stages)):
        yield f"stage {name[:12]} of shard {view.plan.shard} is in service, but does not follow from the retained data"
    adapters = Counter(row.adapter_sha256 for row in rows.values())
    for row in rows.values():
        if adapters[row.adapter_sha256] > 1:
            yield f"stage {row.id[:12]} of shard {row.shard} has the same adapter as another stage"


def _check_stage(run: Run, view: ShardView, stage: Stage, row: StageRow, since: int | None) -> list[str]:
    name, adapter_sha256 = _name(stage), row.adapter_sha256
    digests = {state.slice: state.digest for state in view.slices}
    try:
        published = PublishedStage.open(run.store, stage.id)
        problems = [
            f"{name}: {file} is not what was published; "
            f"remove {published.folder} and run `s3t train`, which trains it again"
            for file in published.broken_files(adapter_sha256)
        ]
    except S3TError as error:
        return [f"{name}: {error.problem}"]
    manifest = published.manifest
    learned = tuple((part.index, part.digest) for part in manifest.slices)
    if learned != tuple((index, digests[index]) for index in stage.slices) or manifest.shard != stage.shard:
        problems.append(f"{name}: its manifest names other data than what is retained")
    origin = (manifest.parents, manifest.recipe_digest, manifest.base_digest)
    if origin != (stage.ancestors, run.row.recipe_digest, run.row.base_digest):
        problems.append(f"{name}: its manifest names other parents, or another recipe or base")
    if {manifest.adapter_sha256, manifest.files.get(ADAPTER_FILE)} != {adapter_sha256}:
        problems.append(f"{name}: its manifest names another adapter than the ledger")
    if since is not None and not is_announced(run, manifest) and (manifest.seal is not None or row.number > since):
        problems.append(f"{name}: its manifest is not what a worker of this run sealed: it was changed, or put there")
    return problems


def _name(stage: Stage) -> str:
    return f"stage {stage.id[:12]} (shard {stage.shard}, slices {list(stage.slices)})"
