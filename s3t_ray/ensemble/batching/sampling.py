"""The next tokens of all rows of a batch, in a few operations over the whole vocabulary.

In: averaged logits [B, V], each row's settings and what it said so far. Out: token ids and log-probabilities. A row's
result depends on its own logits, settings and draw alone, never on its neighbours.

A draw needs one uniform number per row (inverse transform), not one per entry of the vocabulary, and no order unless
a row asks for `top_k` or `top_p`: then the likeliest CANDIDATES are ordered, and all of them only where those do not
reach `top_p`.
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
    """What one generation carries from token to token."""

    params: SamplingParams
    prompt: frozenset[int] = frozenset()
    """Its tokens; only read for `repetition_penalty`."""
    said: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.params.seed)

    def draw(self) -> float:
        """The next number of this generation, in [0, 1)."""
        return self._dice.random()


def sample(logits_B_V: Tensor, states: Sequence[SamplingState]) -> list[Token]:
    """One token per row, with log-probabilities where they were asked for. Changes `states`."""
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
    """`ids` as tokens with their log-probabilities under the model itself, before penalties and temperature."""
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
    """Logits after each row's penalties; the same tensor when no row has one."""
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
    """`chances_V` with those outside `top_k` and `top_p` set to 0; always keeps at least one."""
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
    """The token at which each row's summed chances pass its draw. In float64: the sum runs over the vocabulary."""
    sums = chances_B_V.cumsum(dim=-1, dtype=torch.float64)
    total = sums[:, -1:]
    # A draw is under 1; rounding must not lift it to the total, past the last token that has a chance.
    mark = torch.minimum(total * total.new_tensor(draws)[:, None], torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, mark, right=True)[:, 0].clamp(max=chances_B_V.shape[-1] - 1)
