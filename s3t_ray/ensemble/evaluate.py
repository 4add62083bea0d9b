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

from s3t_ray.data.inputs import NO_LOSS, Example
from s3t_ray.ensemble.answers import Chain, EvalReport, Score
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService
from s3t_ray.ensemble.live_set import LiveSet, members
from s3t_ray.ensemble.row_lora import Layout, applied, plan_rows
from s3t_ray.errors import DataError

_CHUNK_LOGITS = 1 << 24  # of one [positions x V] block: 64 MiB in float32

Team = tuple[Chain, ...]
"""Chains whose predictions are averaged."""


class _Judged(NamedTuple):
    loss: float  # summed over the labelled tokens, in nats
    tokens: int
    right: bool  # classification: whether the likeliest class is the label


@dataclass
class _Tally:
    """Per record: summed loss in nats, labelled tokens, and (classification) whether the label was right."""

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def score(self, classifies: bool) -> Score:
        tokens, records = sum(self.tokens), len(self.losses)
        mean = math.fsum(self.losses) / tokens
        # The mean is a ratio of two sums over records: its error by linearisation.
        spread = math.fsum((loss - mean * count) ** 2 for loss, count in zip(self.losses, self.tokens, strict=True))
        error = math.sqrt(spread * records / (records - 1)) / tokens if records > 1 else 0.0
        accuracy = sum(self.right) / records if classifies else None
        return Score(mean, math.exp(min(mean, 700.0)), tokens, error, accuracy)


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
    judge = _judge_class if base.classes else _judge_text
    for example in examples:

        def judged(now: LiveSet, example: Example = example) -> dict[Team, _Judged]:
            with torch.inference_mode():
                return judge(base, now, _layout(base, lease, now, tuple(tallies)), tuple(tallies), example)

        for team, (loss, tokens, right) in service.turn(lease, judged).items():
            tallies[team].losses.append(loss)
            tallies[team].tokens.append(tokens)
            tallies[team].right.append(right)
    if not tallies[current].losses:
        raise DataError(
            f"none of the {len(examples)} held-out records has anything to predict",
            "set data.holdout or data.holdout_path in the config of a new run, or raise task.max_tokens",
        )
    scores = {team: tally.score(base.classes > 0) for team, tally in tallies.items()}
    by_depth = {depth: scores[team] for depth, team in teams.items()}
    records = len(tallies[current].losses)
    return EvalReport(live, records, len(examples) - records, by_depth, scores[current])


def _layout(base: FrozenBase, lease: Lease[LiveSet], now: LiveSet, teams: Sequence[Team]) -> Layout:
    """Every chain of every team in a row of its own; made once, kept with the lease."""
    if lease.memory is None:
        lease.memory = plan_rows(base, now.stages, [chain for team in teams for chain in team])
    layout: Layout = lease.memory
    return layout


def _judge_text(
    base: FrozenBase, now: LiveSet, layout: Layout, teams: Sequence[Team], example: Example
) -> dict[Team, _Judged]:
    """Each team's summed loss over the labelled tokens; empty when there are none."""
    labelled = [position for position, label in enumerate(example.labels[1:]) if label != NO_LOSS]
    if not labelled:
        return {}
    targets = torch.tensor([example.labels[position + 1] for position in labelled], device=base.device)
    with applied(layout):
        hidden = base.hidden(example.input_ids)[:, labelled]
    rows = max(1, _CHUNK_LOGITS // base.model.config.vocab_size)
    judged = {}
    for team in teams:
        own = hidden[[layout.row(chain) for chain in team]]
        loss = 0.0
        for start in range(0, len(labelled), rows):
            logits = base.text_logits(own[:, start : start + rows])
            loss += float(torch.nn.functional.cross_entropy(logits, targets[start : start + rows], reduction="sum"))
        judged[team] = _Judged(loss, len(labelled), False)
    return judged


def _judge_class(
    base: FrozenBase, now: LiveSet, layout: Layout, teams: Sequence[Team], example: Example
) -> dict[Team, _Judged]:
    """Each team's loss on the label, and whether its likeliest class is the label."""
    if example.label is None:
        return {}
    with applied(layout):
        hidden = base.hidden(example.input_ids)
    judged = {}
    for team in teams:
        scores = base.class_logits(hidden[[layout.row(chain) for chain in team]], now.heads(team))
        loss = -float(torch.log_softmax(scores, dim=-1)[example.label])
        judged[team] = _Judged(loss, 1, int(scores.argmax()) == example.label)
    return judged
