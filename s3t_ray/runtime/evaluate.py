"""`s3t eval` and `s3t generate`: the run's ensemble of live shards, loaded in this process."""

from __future__ import annotations

import os
import time
from itertools import islice

from s3t_ray.data.inputs import Example, encode, prompt_ids
from s3t_ray.data.slices import read_slice
from s3t_ray.errors import DataError
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.runtime.reports import DepthLoss, Evaluation, Generation
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.scratch import scratch_folder
from s3t_ray.runtime.view import view_shard
from s3t_ray.serve.values import Score


def serving_chains(run: Run) -> dict[int, tuple[str, ...]]:
    """Stage ids of the deepest live model of every shard, from the ledger now."""
    return {shard: view_shard(run, shard).serving for shard in range(run.row.shards)}


def held_out_examples(run: Run, limit: int | None = None) -> list[Example]:
    """The held-out records as the model sees them, in the order of their slice file.

    Raises DataError when the run holds none back.
    """
    from transformers import AutoTokenizer

    (state,) = run.ledger.slices(HOLDOUT_SHARD)
    if not state.records or state.file is None:
        raise DataError(
            f"run {run.row.name!r} has no held-out records", "set data.holdout or data.holdout_path and begin a new run"
        )
    tokenizer = AutoTokenizer.from_pretrained(run.base)
    tombstones = run.ledger.tombstones(HOLDOUT_SHARD, state.slice)
    with scratch_folder(run, "eval") as folder:
        rows = (row for row in read_slice(run.store.fetch(state.file, folder)) if row.digest not in tombstones)
        return [encode(row.content, tokenizer, run.config.task) for row in islice(rows, limit)]


def evaluate(run: Run, *, limit: int | None = None) -> Evaluation:
    """Held-out loss of the ensemble at each depth and as it serves now. `limit`: records at most."""
    from s3t_ray.serve.ensemble import Ensemble

    examples = held_out_examples(run, limit)
    ensemble = Ensemble(run.config, run.base, run.store, threads=os.cpu_count())
    ensemble.set_live(1, serving_chains(run))
    report = ensemble.held_out_losses(examples)
    return Evaluation(
        records=report.records,
        tokens=report.current.tokens,
        by_depth=tuple(_depth(depth, score) for depth, score in sorted(report.by_depth.items())),
        live=_depth(max(report.live.depths, default=0), report.current),
        depths=report.live.depths,
    )


def generate(run: Run, prompt: str, *, max_new_tokens: int = 64, temperature: float = 0.0, seed: int = 0) -> Generation:
    """The ensemble's answer to `prompt`, put in the template of the run's task."""
    from transformers import AutoTokenizer

    from s3t_ray.serve.ensemble import Ensemble

    tokenizer = AutoTokenizer.from_pretrained(run.base)
    ensemble = Ensemble(run.config, run.base, run.store, threads=os.cpu_count())
    ensemble.set_live(1, serving_chains(run))
    began = time.monotonic()
    answer = ensemble.generate(
        prompt_ids(prompt, tokenizer, run.config.task),
        max_new_tokens,
        temperature=temperature,
        seed=seed,
        eos=() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,),
    )
    text = tokenizer.decode(answer.tokens, skip_special_tokens=True)
    return Generation(text=text, depths=answer.depths, version=answer.version, seconds=time.monotonic() - began)


def _depth(depth: int, score: Score) -> DepthLoss:
    return DepthLoss(
        depth=depth, loss=score.loss, standard_error=score.standard_error, accuracy=score.accuracy
    )
