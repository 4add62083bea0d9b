"""A second opinion: what a third party without the run's secret can check in a copy, on their own machine.

In: a read-only copy of a run, the run's public key from another source, and the base model. Out: `AuditFacts` to sign.
Writes nothing to the copy: a replay uses a temporary folder on this machine. It cannot check what needs the run's
secret (keyed digests of records, and seals), and the facts say so.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from s3t_ray import __version__
from s3t_ray.audit.audit import chain_problems, recipe_problems
from s3t_ray.audit.coverage import sealed_since
from s3t_ray.audit.leftovers import left_unnamed
from s3t_ray.audit.log_times import time_problems
from s3t_ray.audit.replay import on_this_machine, replay_stages
from s3t_ray.audit.seals import checkpoint_problems
from s3t_ray.audit.verify import check_data_and_stages
from s3t_ray.data.slice_file import file_sha256, read_slice
from s3t_ray.errors import S3TError, VerificationFailed
from s3t_ray.ledger.keys import KEY_BYTES, Keys
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import SliceState, StageState
from s3t_ray.proof.audit_statement import AuditFacts, ReplayFinding
from s3t_ray.proof.key_entry import keys_of
from s3t_ray.proof.log_leaf import leaf_of, origin_of
from s3t_ray.proof.signed_entry import FIRST, LogKeys, raw_public_key
from s3t_ray.run.log.issued_certificates import log_keys
from s3t_ray.run.reports import ReplayedStage, Verification
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.run.shard_view import view_shard
from s3t_ray.store import layout
from s3t_ray.tlog.entry_tree import EntryTree

_NOT_CHECKED = (
    "the keyed digests: that each row has the content, and is of the person, that the run recorded",
    "the seals on stages and stored hidden states, by which the run knows its own workers",
    "rows that were set aside at ingest",
    "the sketches by which near-duplicates are found",
)
_WITHOUT_REPLAY = "that the adapters come from training on the retained records: no stage was trained again"
_SOFTWARE = ("torch", "transformers", "peft", "deepspeed", "ray")


def open_copy(uri: str | Path, base: Path | None) -> Run:
    """Open a copy of a run read-only, with keys that are not the run's. `base`: folder of the base model here."""
    run = Run.open(uri, lent_keys=Keys(secrets.token_bytes(KEY_BYTES)))
    if base is not None:
        run.config = run.config.model_copy(
            update={"model": run.config.model.model_copy(update={"path": str(base), "revision": None})}
        )
    return run


def audit_copy(
    run: Run,
    public_key: bytes,
    *,
    replay: int = 0,
    address: str | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> AuditFacts:
    """Check what can be checked without the run's secret; `run` comes from `open_copy`.

    `public_key`: the run's public key (PEM), from another source. Every problem is a line of the facts. A replay raises
    its own errors.
    """
    watch("the log")
    stored = run.ledger.log()
    problems = (*recipe_problems(run), *chain_problems(run, stored, public_key), *time_problems(stored))
    try:
        found = _checked(run, _keys(run, public_key), replay, address, watch)
    except (ValueError, KeyError, TypeError) as error:
        # A row contains something that our code never writes.
        told = f"the ledger cannot be understood, and was not checked to the end: {error!r}"
        found = Verification(records=0, stages=0, problems=(told,))
    tree = EntryTree(origin_of(run.ledger.run_id), [leaf_of(row.hash) for row in stored])
    return AuditFacts(
        run=run.row.name,
        run_id=run.ledger.run_id,
        run_key=raw_public_key(public_key).hex(),
        entries=len(stored),
        head=stored[-1].hash if stored else FIRST,
        root=tree.head().root.hex(),
        recipe_digest=run.row.recipe_digest,
        base_digest=run.row.base_digest,
        at=datetime.now(UTC).isoformat(),
        records=found.records,
        stages=found.stages,
        excused=found.excused,
        problems=(*problems, *found.problems),
        replayed=tuple(_stated(stage, _adapters(run)) for stage in found.replayed),
        result="failed" if problems else found.result,
        not_checked=_NOT_CHECKED if found.replayed else (*_NOT_CHECKED, _WITHOUT_REPLAY),
        software={"s3t_ray": __version__, **{name: version(name) for name in _SOFTWARE}},
    )


def _checked(run: Run, keys: LogKeys, replay: int, address: str | None, watch: Callable[[str], None]) -> Verification:
    """The checks of `verify` that do not need the run's secret."""
    watch("the ledger against itself")
    problems = [f"ledger: {problem}" for problem in run.ledger.contradictions()]
    views = {shard: view_shard(run, shard) for shard in range(run.row.shards)}
    found = check_data_and_stages(run, views, _slice_problems, None, watch)
    problems += (*found.problems, *left_unnamed(run, views, sealed_since(run, keys)), *checkpoint_problems(run, views))
    trained_again = replay and not found.base_replaced
    replayed = replay_stages(run, views, replay, address, watch, on_this_machine) if trained_again else ()
    return found.reported(run, problems, replayed)


def _keys(run: Run, public_key: bytes) -> LogKeys:
    """The keys of the log, as far as genuine changes of key connect them."""
    try:
        return log_keys(run, public_key)
    except VerificationFailed:
        return keys_of(public_key, ())  # reported with the chain


def _slice_problems(run: Run, state: SliceState) -> Iterator[str]:
    """Compute the slice's digest from the digests in its rows; verifying those needs the secret."""
    where = f"slice {state.slice} of shard {layout.shard_folder(state.shard)}"
    if state.file is None:
        yield f"{where} has no file"
        return
    tombstones, total = run.ledger.tombstones(state.shard, state.slice), LtHash16()
    try:
        with scratch_folder(run, "verify") as folder:
            path = run.store.fetch(state.file, folder)
            if file_sha256(path) != state.file_sha256:
                yield f"{where}: {state.file} was changed: its bytes are not those recorded in the ledger"
                return
            for row in read_slice(path):
                if row.digest not in tombstones:
                    total.add([row.digest])
    except S3TError as error:
        yield f"{where}: {error.problem}"
        return
    if (total.digest(), total.members) != (state.digest, state.records):
        yield f"{where}: it has {total.members} retained rows, but the ledger has {state.records} records"


def _adapters(run: Run) -> dict[str, str]:
    return {row.id: row.adapter_sha256 for row in run.ledger.stages(state=StageState.LIVE)}


def _stated(stage: ReplayedStage, adapters: Mapping[str, str]) -> ReplayFinding:
    return ReplayFinding(
        stage=stage.stage_id,
        shard=stage.shard,
        slices=stage.slices,
        adapter_sha256=adapters[stage.stage_id],
        verdict=stage.verdict.value,
        largest_difference=stage.largest_difference if math.isfinite(stage.largest_difference) else None,
        mismatches=stage.mismatches,
    )
