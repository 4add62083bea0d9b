"""One generation: the ensemble's next token, again and again, on one lease of the live set.

In: a prompt in tokens and how to choose. Out: the tokens, then why it ended. The members of the ensemble share
the tokens; each has its own rows of the key-value cache. Raises Revoked as soon as the live set loses one of
its stages: the caller begins anew, so that no answer mixes two ensembles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s3t_ray.ensemble.answers import Ended, Finish, Token
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService
from s3t_ray.ensemble.live_set import LiveSet
from s3t_ray.ensemble.row_lora import applied
from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen from the averaged logits.

    `temperature` 0 takes the likeliest. Otherwise it draws, with `seed`, from the smallest set of likeliest
    tokens whose probabilities reach `top_p`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    eos: frozenset[int] = frozenset()
    """Tokens that end the answer; they are not part of it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be 1 or more, got {self.max_new_tokens}", "ask for 1 token or more")
        if self.temperature < 0:
            raise ConfigError(f"temperature must be 0 or more, got {self.temperature}", "use 0 for the likeliest token")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be over 0 and at most 1, got {self.top_p}", "use 1 to draw from all tokens")


def decode(
    base: FrozenBase, service: LiveService[LiveSet], lease: Lease[LiveSet], prompt: Sequence[int], choice: Choice
) -> Iterator[Token | Ended]:
    """The tokens that follow `prompt`, each in a turn of its own, and `Ended`. Raises Revoked, DataError."""
    base.check_length(len(prompt))
    room = choice.max_new_tokens
    if base.max_tokens is not None:
        room = min(room, base.max_tokens - len(prompt) + 1)  # the last token is never fed back
    generator = torch.Generator().manual_seed(choice.seed)
    ids = list(prompt)

    def next_token(live: LiveSet) -> int:
        return pick(_next_logits(base, lease, live, ids), choice, generator)

    for _ in range(room):
        token = service.turn(lease, next_token)
        if token in choice.eos:
            yield Ended(Finish.STOP)
            return
        yield Token(token)
        ids = [token]
    yield Ended(Finish.LENGTH)


def pick(logits: Tensor, choice: Choice, generator: torch.Generator) -> int:
    """One token id from logits [V]."""
    if choice.temperature == 0:
        return int(logits.argmax())
    chances, tokens = torch.softmax(logits.cpu() / choice.temperature, dim=-1).sort(descending=True, stable=True)
    # Keep each token before which less than top_p has been reached: always at least the first.
    chances = chances * (chances.cumsum(dim=-1) - chances < choice.top_p)
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])


def _next_logits(base: FrozenBase, lease: Lease[LiveSet], live: LiveSet, ids: Sequence[int]) -> Tensor:
    """Logits [V] of the token after `ids`, which continue what the lease's cache has seen."""
    cache = lease.memory
    if cache is None:
        lease.memory = cache = base.new_cache()
    with torch.inference_mode(), applied(live.layout):
        return base.outputs(base.hidden(ids, cache)[:, -1:], live.heads(live.layout.chains))[0]
