"""One generation at work: what it was asked, what it has said, and what a forward pass adds.

In: a request, a lease, and what passes make of its tokens. Out: events into its outbox. Computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from s3t_ray.ensemble.answers import Ended, Finish, GenerationEvent, PromptRead, Token
from s3t_ray.ensemble.batching.outbox import Outbox, Said
from s3t_ray.ensemble.batching.prefix_cache import CachedText
from s3t_ray.ensemble.batching.sampling import SamplingState
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.batching.text_reader import Decode, TextReader
from s3t_ray.ensemble.leases import Lease
from s3t_ray.ensemble.live_set import LiveSet

FIRST_ROOM = 64
"""Tokens of the answer for which a cache has room before it grows."""


@dataclass(frozen=True)
class GenerationRequest:
    """One generation: the prompt's tokens, how to sample, which tokens end it, and how its tokens are read as text."""

    prompt: tuple[int, ...]
    params: SamplingParams
    eos: frozenset[int] = frozenset()
    decode: Decode | None = None
    """None: nobody asks for text."""
    whole: bool = False
    """Nothing is said before the answer is complete."""
    of_base: bool = False
    """The base model answers alone."""


@dataclass(frozen=True)
class Fed:
    """What one generation got from one pass: the next token if its tokens so far are all read."""

    scores: list[Token]  # of the prompt's tokens that follow those that were fed
    token: Token | None


@dataclass
class GenerationRow:
    """A generation at work. `fed` tokens of `tokens` (the prompt, then the answer) are in the cache."""

    id: str
    request: GenerationRequest
    outbox: Outbox
    most: int  # new tokens
    reserve: int  # tokens that its cache may take room for
    lease: Lease[LiveSet]
    tokens: list[int] = field(init=False)
    sampling: SamplingState = field(init=False)
    reader: TextReader | None = field(init=False)
    fed: int = 0
    cached: int = 0  # of the prompt, copied from another text
    prompt_scores: list[Token] = field(default_factory=list)
    unsaid: list[GenerationEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart(self.lease)

    def restart(self, lease: Lease[LiveSet]) -> None:
        """Begin at the prompt, on `lease`: all that was said is void."""
        request = self.request
        self.lease = lease
        self.tokens, self.fed, self.cached = list(request.prompt), 0, 0
        self.prompt_scores, self.unsaid = [], []
        self.sampling = SamplingState(request.params, frozenset(request.prompt))
        self.reader = None if request.decode is None else TextReader(request.decode, request.params.stop)

    @property
    def made(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def first_room(self) -> int:
        """Tokens that its cache has room for at first: most answers end long before they may."""
        return len(self.request.prompt) + min(self.most, FIRST_ROOM)

    @property
    def scores_prompt(self) -> bool:
        return self.request.params.prompt_logprobs

    def cached_text(self) -> CachedText:
        """What the cache in its lease's memory holds."""
        return CachedText(tuple(self.tokens[: self.fed]), self.lease)

    def hear(self, fed: Fed, count: int) -> bool:
        """Take what a pass made of `count` of its tokens and say it; whether the generation has ended."""
        self.fed += count
        events = self._events(fed)
        self.say(events)
        return bool(events) and isinstance(events[-1], Ended)

    def say(self, events: list[GenerationEvent]) -> None:
        """Into the outbox; at the end only, if nobody listens before."""
        self.unsaid += events
        if self.unsaid and (not self.request.whole or isinstance(self.unsaid[-1], Ended)):
            self.outbox.put([Said(self.id, event) for event in self.unsaid])
            self.unsaid = []

    def _events(self, fed: Fed) -> list[GenerationEvent]:
        events: list[GenerationEvent] = []
        self.prompt_scores += fed.scores
        whole = self.fed == len(self.tokens)
        if whole and self.made == 0 and self.scores_prompt:
            events.append(PromptRead((Token(self.tokens[0]), *self.prompt_scores)))
        if whole and self.most == 0:
            return [*events, Ended(Finish.LENGTH)]
        if fed.token is None:
            return events
        token = fed.token
        if token.id in self.request.eos and not self.request.params.ignore_eos:
            return [*events, Ended(Finish.STOP, self.reader.end() if self.reader else "", self.made)]
        self.tokens.append(token.id)
        if self.reader is not None:
            token = Token(token.id, self.reader.read(token.id), token.logprob, token.top)
            if self.reader.stopped:
                return [*events, token, Ended(Finish.STOP, tokens=self.made)]
        events.append(token)
        if self.made == self.most:
            rest = self.reader.end() if self.reader else ""
            finish = Finish.STOP if self.reader and self.reader.stopped else Finish.LENGTH
            events.append(Ended(finish, rest, self.made))
        return events
