"""The state of one running generation: its request, its output so far, and how a forward pass extends it.

In: a request, a lease, and the results of forward passes. Out: events in its outbox. Runs no model.
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
"""The number of answer tokens that a cache has room for before it grows."""


@dataclass(frozen=True)
class GenerationRequest:
    """A generation request: prompt tokens, sampling settings, end-of-sequence tokens, and the text decoder."""

    prompt: tuple[int, ...]
    params: SamplingParams
    eos: frozenset[int] = frozenset()
    decode: Decode | None = None
    """None: only token ids are wanted."""
    whole: bool = False
    """Emit no events before the answer is complete."""
    of_base: bool = False
    """Answer with the base model alone."""


@dataclass(frozen=True)
class Fed:
    """The result of one pass for one generation. `token` is None until all of its tokens have been read."""

    scores: list[Token]  # scores of the prompt tokens that follow the ones in this pass
    token: Token | None


@dataclass
class GenerationRow:
    """A running generation. `tokens` is the prompt and then the answer; the first `fed` of them are in the cache."""

    id: str
    request: GenerationRequest
    outbox: Outbox
    most: int  # maximum number of new tokens
    reserve: int  # maximum number of tokens in its cache
    lease: Lease[LiveSet]
    tokens: list[int] = field(init=False)
    sampling: SamplingState = field(init=False)
    reader: TextReader | None = field(init=False)
    fed: int = 0
    cached: int = 0  # prompt tokens copied from the cache of another text
    prompt_scores: list[Token] = field(default_factory=list)
    unsaid: list[GenerationEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart(self.lease)

    def restart(self, lease: Lease[LiveSet]) -> None:
        """Restart from the prompt, on `lease`. All earlier output is discarded."""
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
        """The initial size of its cache in tokens: most answers end long before their limit."""
        return len(self.request.prompt) + min(self.most, FIRST_ROOM)

    @property
    def scores_prompt(self) -> bool:
        return self.request.params.prompt_logprobs

    def cached_text(self) -> CachedText:
        """The text in the cache of its lease."""
        return CachedText(tuple(self.tokens[: self.fed]), self.lease)

    def hear(self, fed: Fed, count: int) -> bool:
        """Process the result of a pass over `count` tokens and emit the events. Returns whether it has ended."""
        self.fed += count
        events = self._events(fed)
        self.say(events)
        return bool(events) and isinstance(events[-1], Ended)

    def say(self, events: list[GenerationEvent]) -> None:
        """Put events into the outbox. With `whole`, keep them until the end."""
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
