"""`s3t eval` and `s3t generate`: load the run's live ensemble in this process and use it."""

from __future__ import annotations

import math
import os
from itertools import islice
from typing import TYPE_CHECKING

from s3t_ray.config.load import dump_config
from s3t_ray.data.slices import read_slice
from s3t_ray.ensemble.answers import EvalReport, Score
from s3t_ray.errors import DataError, LedgerError
from s3t_ray.ledger.values import StageState
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.reports import DepthLoss, Evaluation, Generation
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.run.shard_view import view_shard

if TYPE_CHECKING:
    from s3t_ray.ensemble.replica import Replica


_ATTEMPTS = 5


def serving_chains(run: Run) -> dict[int, tuple[str, ...]]:
    """The stage ids of every shard's deepest live model, according to the ledger now."""
    return {shard: view_shard(run, shard).serving for shard in range(run.row.shards)}


def held_out_contents(run: Run, limit: int | None = None) -> list[str]:
    """The contents (canonical JSON) of at most `limit` held-out records, in the order of their slice file.

    Leaves out deleted records, even if they are not purged yet. Raises DataError if the run has no held-out records.
    """
    (state,) = run.ledger.slices(HOLDOUT_SHARD)
    if not state.records or state.file is None:
        raise DataError(
            f"run {run.row.name!r} has no held-out records",
            "set data.holdout, data.holdout_path or data.holdout_split and start a new run",
        )
    tombstones = run.ledger.tombstones(HOLDOUT_SHARD, state.slice)
    with scratch_folder(run, "eval") as folder:
        rows = (row for row in read_slice(run.store.fetch(state.file, folder)) if row.digest not in tombstones)
        return [row.content for row in islice(rows, limit)]


def evaluate(run: Run, *, limit: int | None = None) -> Evaluation:
    """The ensemble's held-out loss at each depth and as served now. `limit`: maximum number of records.

    Raises DataError if there are no held-out records, LedgerError if deletions interrupt every attempt.
    """
    contents = held_out_contents(run, limit)
    replica = _replica(run)
    for version in range(2, _ATTEMPTS + 2):
        chains = serving_chains(run)
        replica.set_live(version, chains)
        report = replica.evaluate(contents)
        if _live(run).issuperset(name for chain in chains.values() for name in chain):
            return evaluation(report)
    raise _moved_on()


def generate(run: Run, prompt: str, *, max_new_tokens: int = 64, temperature: float = 0.0, seed: int = 0) -> Generation:
    """The ensemble's answer to `prompt`, in the template of the run's task. `seed` is used if `temperature` > 0.

    Raises DataError for an unreadable prompt, LedgerError if deletions interrupt every attempt.
    """
    replica = _replica(run)
    for version in range(2, _ATTEMPTS + 2):
        answer = replica.generate(prompt, max_new_tokens, temperature=temperature, seed=seed)
        # As in the service: release an answer only after a ledger read that started once it was complete.
        if _live(run).issuperset(answer.stages):
            return Generation(text=answer.text, depths=answer.depths, version=answer.version, seconds=answer.seconds)
        replica.set_live(version, serving_chains(run))
    raise _moved_on()


def evaluation(report: EvalReport) -> Evaluation:
    """Convert the ensemble's report to the command line's report."""
    return Evaluation(
        records=report.records,
        tokens=report.current.tokens,
        by_depth=tuple(_depth(depth, score) for depth, score in sorted(report.by_depth.items())),
        live=_depth(max(report.live.depths, default=0), report.current),
        depths=report.live.depths,
    )


def _replica(run: Run) -> Replica:
    from s3t_ray.ensemble.replica import Replica

    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    replica = Replica(dump_config(run.config), str(run.base), run.location.storage_uri, threads)
    replica.set_live(1, serving_chains(run))
    return replica


def _live(run: Run) -> frozenset[str]:
    """The ids of the live stages, from a ledger read that starts now."""
    return frozenset(row.id for row in run.ledger.stages(state=StageState.LIVE))


def _moved_on() -> LedgerError:
    return LedgerError(
        f"deletions removed stages from service during each of {_ATTEMPTS} attempts to answer",
        "try again once the run is idle (`s3t status`)",
    )


def _depth(depth: int, score: Score) -> DepthLoss:
    metrics = {name: None if math.isnan(value) else value for name, value in score.metrics.items()}
    return DepthLoss(depth=depth, loss=score.loss, standard_error=score.standard_error, metrics=metrics)
