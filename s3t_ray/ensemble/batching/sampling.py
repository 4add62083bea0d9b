"""Samples the next tokens of all rows in a batch, with a few operations over the vocabulary.

In: averaged logits [B, V], each row's settings and tokens so far. Out: token ids and log-probabilities. A row's result
depends only on its own logits, settings and random draw, never on other rows.

A draw needs one uniform number per row (inverse transform sampling), not one per vocabulary entry. Nothing is sorted
unless a row sets `top_k` or `top_p`. Then only the CANDIDATES most likely tokens are sorted, or all of them if those
do not reach `top_p`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from s3t_ray.ensemble.answers import Token
from s3t_ray.ensemble.batching.sampling_params import SamplingParams

CANDIDATES = 1024


@dataclass
class SamplingState:
    """The sampling state of one generation."""

    params: SamplingParams
    prompt: frozenset[int] = frozenset()
    """The prompt's tokens; used only for `repetition_penalty`."""
    said: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.params.seed)

    def draw(self) -> float:
        """The next random number of this generation, in [0, 1)."""
        return self._dice.random()


def sample(logits_B_V: Tensor, states: Sequence[SamplingState]) -> list[Token]:
    """Sample one token per row, with log-probabilities where requested. Updates `states`."""
    logits = penalised(logits_B_V, states)
    drawing = [row for row, state in enumerate(states) if state.params.temperature > 0]
    if len(drawing) == len(states):
        chosen = _draw(logits, states)
    else:
        chosen = logits.argmax(dim=-1)
        if drawing:
            drawn = _draw(logits[drawing], [states[row] for row in drawing])
            chosen[torch.tensor(drawing, device=chosen.device)] = drawn
    ids: list[int] = chosen.tolist()
    for state, token in zip(states, ids, strict=True):
        if state.params.counts_tokens:
            state.said[token] += 1
    return scored(logits_B_V, ids, [state.params.logprobs for state in states])


def scored(logits_N_V: Tensor, ids: Sequence[int], wanted: Sequence[int | None]) -> list[Token]:
    """`ids` as tokens, with log-probabilities under the model before penalties and temperature.

    `wanted[n]`: how many of the most likely tokens to report at position n; None: no log-probabilities.
    """
    rows = [row for row, count in enumerate(wanted) if count is not None]
    if not rows:
        return [Token(token) for token in ids]
    own = logits_N_V if len(rows) == len(ids) else logits_N_V[rows]
    logs = torch.log_softmax(own.float(), dim=-1)
    of_ids = logs.gather(1, torch.tensor([[ids[row]] for row in rows], device=logs.device))[:, 0].tolist()
    most = max(wanted[row] or 0 for row in rows)
    top = torch.topk(logs, min(most, logs.shape[-1]), dim=-1) if most else None
    values = top.values.tolist() if top is not None else [[]] * len(rows)
    indices = top.indices.tolist() if top is not None else [[]] * len(rows)
    tokens = [Token(token) for token in ids]
    for at, row in enumerate(rows):
        count = wanted[row] or 0
        likeliest = tuple(zip(indices[at][:count], values[at][:count], strict=True))
        tokens[row] = Token(ids[row], logprob=of_ids[at], top=likeliest)
    return tokens


def penalised(logits_B_V: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """The logits after each row's penalties; the same tensor if no row has any."""
    if not any(state.params.counts_tokens for state in states):
        return logits_B_V
    logits = logits_B_V.clone()
    for row, state in enumerate(states):
        params = state.params
        if params.repetition_penalty != 1.0 and (held := sorted(state.prompt | state.said.keys())):
            at = torch.tensor(held, device=logits.device)
            old = logits[row, at]
            factor = params.repetition_penalty
            logits[row, at] = torch.where(old > 0, old / factor, old * factor)
        if state.said:
            at = torch.tensor(list(state.said), device=logits.device)
            times = torch.tensor(list(state.said.values()), device=logits.device, dtype=logits.dtype)
            logits[row, at] -= params.presence_penalty + params.frequency_penalty * times
    return logits


def _draw(logits_B_V: Tensor, states: Sequence[SamplingState]) -> Tensor:
    heat = logits_B_V.new_tensor([[state.params.temperature] for state in states])
    chances = torch.softmax(logits_B_V / heat, dim=-1)
    if any(state.params.min_p > 0 for state in states):
        least = chances.new_tensor([[state.params.min_p] for state in states])
        chances = chances * (chances >= least * chances.amax(dim=-1, keepdim=True))
    ordering = [row for row, state in enumerate(states) if state.params.top_k or state.params.top_p < 1]
    if ordering:
        chances = chances.clone()
        for row in ordering:
            chances[row] = _likeliest(chances[row], states[row].params)
    return _inverse(chances, [state.draw() for state in states])


def _likeliest(chances_V: Tensor, params: SamplingParams) -> Tensor:
    """`chances_V` with the entries outside `top_k` and `top_p` set to 0. Always keeps at least one entry."""
    size = len(chances_V)
    most = min(params.top_k or size, size)
    total = float(chances_V.sum())
    count = min(most, CANDIDATES)
    while True:
        best = torch.topk(chances_V, count)
        before = best.values.cumsum(dim=-1) - best.values
        reached = bool(before[-1] + best.values[-1] >= params.top_p * total)
        if reached or count >= most:
            break
        count = most
    kept = best.values * (before < params.top_p * total)
    return torch.zeros_like(chances_V).scatter_(0, best.indices, kept)


def _inverse(chances_B_V: Tensor, draws: Sequence[float]) -> Tensor:
    """The token at which each row's cumulative probability exceeds its draw. Sums in float64 for precision."""
    sums = chances_B_V.cumsum(dim=-1, dtype=torch.float64)
    total = sums[:, -1:]
    # A draw is below 1. Rounding must not raise it to the total, past the last token with a probability above 0.
    mark = torch.minimum(total * total.new_tensor(draws)[:, None], torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, mark, right=True)[:, 0].clamp(max=chances_B_V.shape[-1] - 1)
