"""Computes the ensemble's held-out loss at every depth, with one forward pass per batch of records of equal length.

In: examples and a lease on the live set. Out: an EvalReport. All depths of all shards are rows of one batch: the
base's layers run once per record, and a shard limited to depth d branches off at its lowest adapter. Logits are
computed only at labelled positions. Raises Revoked if the live set loses a stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from s3t_ray.data.readers.inputs import Example
from s3t_ray.ensemble.answers import Chain, EvalReport, Score
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService
from s3t_ray.ensemble.live_set import LiveSet, members
from s3t_ray.ensemble.mean_stage import answering_rows
from s3t_ray.ensemble.row_lora import Layout, applied, plan_rows
from s3t_ray.ensemble.task_metrics import TASK_METRICS
from s3t_ray.errors import DataError
from s3t_ray.train.task_models.task_model import JudgingModel

_BATCH_TOKENS = 4096
"""Maximum tokens per batch, over all rows."""
_CHUNK_LOGITS = 1 << 24  # per [positions x V] block: 64 MiB in float32

Team = tuple[Chain, ...]
"""Chains whose predictions are averaged."""


class _Judged(NamedTuple):
    loss: float  # summed over the predictions
    predictions: int
    said: float | None  # the ensemble's prediction for the record; None for text


@dataclass
class _Tally:
    """Per record: summed loss, number of predictions, the ensemble's prediction and the true label."""

    losses: list[float] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)
    said: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)

    def add(self, judged: _Judged, example: Example) -> None:
        self.losses.append(judged.loss)
        self.predictions.append(judged.predictions)
        if judged.said is not None and example.label is not None:
            self.said.append(judged.said)
            self.true.append(example.label)

    def score(self, metrics: Sequence[str]) -> Score:
        predictions, records = sum(self.predictions), len(self.losses)
        mean = math.fsum(self.losses) / predictions
        # The mean is a ratio of two sums over records, so estimate its error by linearization (delta method).
        spread = math.fsum(
            (loss - mean * count) ** 2 for loss, count in zip(self.losses, self.predictions, strict=True)
        )
        error = math.sqrt(spread * records / (records - 1)) / predictions if records > 1 else 0.0
        found = {name: TASK_METRICS[name](self.said, self.true) for name in metrics}
        return Score(mean, math.exp(min(mean, 700.0)), predictions, error, found)


def evaluate(
    base: FrozenBase,
    service: LiveService[LiveSet],
    lease: Lease[LiveSet],
    examples: Sequence[Example],
    depths: Sequence[int],
) -> EvalReport:
    """The scores at `depths` and of the ensemble in service.

    Raises DataError if no example has a label, Revoked if the lease loses a stage.
    """
    live, chains = service.turn(lease, lambda now: (now.live, now.chains))
    teams: dict[int, Team] = {depth: members(tuple(chain[:depth] for chain in chains)) for depth in depths}
    current = members(chains)
    tallies: dict[Team, _Tally] = {team: _Tally() for team in (*teams.values(), current)}
    rows = len({chain for team in tallies for chain in team}) or 1
    for batch in _batches(base, examples, rows):

        def judged(now: LiveSet, batch: Sequence[Example] = batch) -> list[dict[Team, _Judged]]:
            with torch.inference_mode():
                return _judge(base, now, _rows(base, lease, now, tuple(tallies)), batch)

        for example, found in zip(batch, service.turn(lease, judged), strict=True):
            for team, own in found.items():
                tallies[team].add(own, example)
    if not tallies[current].losses:
        raise DataError(
            f"none of the {len(examples)} held-out records has a token to predict",
            "start a new run with data.holdout, data.holdout_path or data.holdout_split, or a larger task.max_tokens",
        )
    scores = {team: tally.score(base.task.task.wanted_metrics) for team, tally in tallies.items()}
    by_depth = {depth: scores[team] for depth, team in teams.items()}
    records = len(tallies[current].losses)
    return EvalReport(live, records, len(examples) - records, by_depth, scores[current])


@dataclass(frozen=True)
class _Rows:
    """The layout of all teams, and for each team the rows whose outputs are averaged."""

    layout: Layout
    of: Mapping[Team, tuple[Chain, ...]]


def _rows(base: FrozenBase, lease: Lease[LiveSet], now: LiveSet, teams: Sequence[Team]) -> _Rows:
    """The rows for the chains of all teams; computed once and kept with the lease."""
    if lease.memory is None:
        stages, of = now.stages, {}
        for team in teams:
            of[team], stages = answering_rows(base, stages, team)
        lease.memory = _Rows(plan_rows(base, stages, [row for own in of.values() for row in own]), of)
    rows: _Rows = lease.memory
    return rows


def _batches(base: FrozenBase, examples: Sequence[Example], rows: int) -> Iterator[list[Example]]:
    """Batch records with something to predict by equal length: without padding, none affects another."""
    by_length: dict[int, list[Example]] = {}
    for example in examples:
        if base.task.asked(example)[0]:
            by_length.setdefault(len(example.input_ids), []).append(example)
    for length, alike in sorted(by_length.items()):
        size = max(1, _BATCH_TOKENS // (length * rows)) if base.batches else 1
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def _judge(base: FrozenBase, now: LiveSet, rows: _Rows, batch: Sequence[Example]) -> list[dict[Team, _Judged]]:
    """Each team's summed loss and prediction, for each record of the batch."""
    asked = [base.task.asked(example) for example in batch]
    targets_S = torch.tensor([target for _, wanted in asked for target in wanted], device=base.device)
    texts = [text for text, (positions, _) in enumerate(asked) for _ in positions]
    places = [position for positions, _ in asked for position in positions]
    with applied(rows.layout, len(batch)):
        hidden_R_S_D = base.hidden_of(batch)[:, texts, places]
    chunk = max(1, _CHUNK_LOGITS // base.output_rows)
    judged: list[dict[Team, _Judged]] = [{} for _ in batch]
    for team, chains in rows.of.items():
        own, heads = hidden_R_S_D[[rows.layout.row(chain) for chain in chains]], now.heads(chains)
        losses: list[Tensor] = []
        said: list[float] = []
        for start in range(0, len(targets_S), chunk):
            outputs_S_V = base.outputs(own[:, start : start + chunk], heads)
            losses.append(base.task.losses(outputs_S_V, targets_S[start : start + chunk]))
            if isinstance(base.task, JudgingModel):
                said += [base.task.predicted(scores) for scores in outputs_S_V]
        of_texts = torch.cat(losses).split([len(positions) for positions, _ in asked])
        for text, loss_S in enumerate(of_texts):
            judged[text][team] = _Judged(float(loss_S.sum()), len(loss_S), said[text] if said else None)
    return judged
