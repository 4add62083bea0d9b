"""Held-out loss of the ensemble at every depth, from one forward pass a record.

In: examples and a lease on the live set. Out: an EvalReport. All depths of all shards are rows of one
batch: the base's layers run once a record, and a shard cut at depth d branches off where its lowest adapter
begins. Logits are made only where there is a label. Raises Revoked when the live set loses a stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from s3t_ray.data.inputs import Example
from s3t_ray.ensemble.answers import Chain, EvalReport, Score
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService
from s3t_ray.ensemble.live_set import LiveSet, members
from s3t_ray.ensemble.row_lora import Layout, applied, plan_rows
from s3t_ray.ensemble.task_metrics import TASK_METRICS
from s3t_ray.errors import DataError
from s3t_ray.train.task_model import JudgingModel

_CHUNK_LOGITS = 1 << 24  # of one [positions x V] block: 64 MiB in float32

Team = tuple[Chain, ...]
"""Chains whose predictions are averaged."""


class _Judged(NamedTuple):
    loss: float  # summed over the predictions
    predictions: int
    said: float | None  # what the ensemble says of the whole record; None for text


@dataclass
class _Tally:
    """Per record: summed loss, predictions, what the ensemble says of it and what is true."""

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
        # The mean is a ratio of two sums over records: its error by linearisation.
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
    """Scores at `depths` and of the ensemble in service. Raises DataError when nothing has a label."""
    live, chains = service.turn(lease, lambda now: (now.live, now.chains))
    teams: dict[int, Team] = {depth: members(tuple(chain[:depth] for chain in chains)) for depth in depths}
    current = members(chains)
    tallies: dict[Team, _Tally] = {team: _Tally() for team in (*teams.values(), current)}
    for example in examples:

        def judged(now: LiveSet, example: Example = example) -> dict[Team, _Judged]:
            with torch.inference_mode():
                return _judge(base, now, _layout(base, lease, now, tuple(tallies)), tuple(tallies), example)

        for team, found in service.turn(lease, judged).items():
            tallies[team].add(found, example)
    if not tallies[current].losses:
        raise DataError(
            f"none of the {len(examples)} held-out records has anything to predict",
            "set data.holdout or data.holdout_path in the config of a new run, or raise task.max_tokens",
        )
    scores = {team: tally.score(base.task.task.wanted_metrics) for team, tally in tallies.items()}
    by_depth = {depth: scores[team] for depth, team in teams.items()}
    records = len(tallies[current].losses)
    return EvalReport(live, records, len(examples) - records, by_depth, scores[current])


def _layout(base: FrozenBase, lease: Lease[LiveSet], now: LiveSet, teams: Sequence[Team]) -> Layout:
    """Every chain of every team in a row of its own; made once, kept with the lease."""
    if lease.memory is None:
        lease.memory = plan_rows(base, now.stages, [chain for team in teams for chain in team])
    layout: Layout = lease.memory
    return layout


def _judge(
    base: FrozenBase, now: LiveSet, layout: Layout, teams: Sequence[Team], example: Example
) -> dict[Team, _Judged]:
    """Each team's summed loss and what it says; empty when there is nothing to predict."""
    positions, wanted = base.task.asked(example)
    if not positions:
        return {}
    targets_S = torch.tensor(wanted, device=base.device)
    with applied(layout):
        hidden = base.hidden(example.input_ids)[:, positions]
    rows = max(1, _CHUNK_LOGITS // base.model.config.vocab_size)
    judged = {}
    for team in teams:
        own, heads = hidden[[layout.row(chain) for chain in team]], now.heads(team)
        loss, said = 0.0, None
        for start in range(0, len(positions), rows):
            outputs_S_V = base.outputs(own[:, start : start + rows], heads)
            loss += float(base.task.losses(outputs_S_V, targets_S[start : start + rows]).sum())
            if isinstance(base.task, JudgingModel):
                said = base.task.predicted(outputs_S_V[0])
        judged[team] = _Judged(loss, len(positions), said)
    return judged
