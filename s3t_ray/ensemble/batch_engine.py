"""Many generations at once, joined and left at every step (iteration-level batching).

In: prompts in tokens and how to sample. Out: their events, in the outbox that each was submitted with. `batch_plan`
decides what a step feeds; here it is computed. Each generation holds a lease on the live set that it began with, and
its cache is the lease's memory: a deletion strikes exactly the generations that rest on a struck stage, and those begin
anew by themselves. Generations on one live set share a forward pass; those that began before a stage was added run in
a pass of their own until they end.

One thread computes, and only while there is something to do. A result depends on who shares the batch only by the
rounding of matrix products, whose shape the batch decides.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from s3t_ray.ensemble.answers import Ended, Failed, Finish, GenerationEvent, PromptRead, Started, Token
from s3t_ray.ensemble.batch_plan import BatchLimits, RunningRow, WaitingRow, next_step
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService
from s3t_ray.ensemble.live_set import LiveSet
from s3t_ray.ensemble.outbox import Outbox, Said
from s3t_ray.ensemble.packed_pass import KeyValueCache, packed_hidden
from s3t_ray.ensemble.prefix_cache import CachedText, PrefixCache
from s3t_ray.ensemble.row_lora import applied
from s3t_ray.ensemble.sampling import SamplingState, sample, scored
from s3t_ray.ensemble.sampling_params import SamplingParams
from s3t_ray.ensemble.text_reader import Decode, TextReader
from s3t_ray.errors import DataError, Overloaded, S3TError
from s3t_ray.train.task_model import Head

MOST_WAITING = 1024
"""Generations that wait for a place; a further one is refused."""
_CHUNK_LOGITS = 1 << 24  # of one [positions x V] block: 64 MiB in float32


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


@dataclass
class _Row:
    """A generation at work. `fed` tokens of `tokens` (the prompt, then the answer) are in the cache."""

    id: str
    request: GenerationRequest
    outbox: Outbox
    most: int  # new tokens
    lease: Lease[LiveSet]
    tokens: list[int]
    sampling: SamplingState
    reader: TextReader | None
    fed: int = 0
    cached: int = 0  # of the prompt, copied from another text
    prompt_scores: list[Token] = field(default_factory=list)
    unsaid: list[GenerationEvent] = field(default_factory=list)

    @property
    def made(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def reserve(self) -> int:
        return len(self.request.prompt) + self.most

    @property
    def scores_prompt(self) -> bool:
        return self.request.params.prompt_logprobs


@dataclass(frozen=True)
class _Fed:
    """What one generation got from one pass: the next token if its tokens so far are all read."""

    scores: list[Token]  # of the prompt's tokens that follow those that were fed
    token: Token | None


class BatchEngine:
    """Every method may be called from any thread."""

    def __init__(self, base: FrozenBase, service: LiveService[LiveSet], limits: BatchLimits) -> None:
        self._base = base
        self._service = service
        self._limits = limits
        self._prefixes = PrefixCache(service, limits.cache_tokens // 4)
        self._rows: list[_Row] = []  # of the computing thread
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, GenerationRequest, Outbox]] = deque()
        self._cancelled: set[str] = set()
        self._working = False

    def submit(self, name: str, request: GenerationRequest, outbox: Outbox) -> None:
        """Begin a generation under a name of the caller's, by which `outbox` hears of it.

        Raises DataError for a prompt that cannot be read, Overloaded when too many wait.
        """
        self._base.check_length(len(request.prompt))
        reserve = len(request.prompt) + self._most_new(request)
        if reserve > self._limits.cache_tokens:
            raise DataError(
                f"prompt and answer may take {reserve} tokens, but this replica has memory for "
                f"{self._limits.cache_tokens}",
                "ask for fewer tokens",
            )
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise Overloaded(f"{MOST_WAITING} generations wait already", "ask again later, or add replicas")
            self._waiting.append((name, request, outbox))
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="s3t-batch", daemon=True).start()

    def cancel(self, name: str) -> None:
        """End a generation whose listener has gone; one that has ended already is no error."""
        with self._changed:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != name)
            if self._working:
                self._cancelled.add(name)

    @property
    def load(self) -> int:
        """Generations that run or wait."""
        with self._changed:
            return len(self._rows) + len(self._waiting)

    def _most_new(self, request: GenerationRequest) -> int:
        most = request.params.max_new_tokens
        if self._base.max_tokens is not None:  # the last token is never fed back
            most = min(most, self._base.max_tokens - len(request.prompt) + 1)
        return most

    def _work(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as error:
            self._fail(error)
            raise

    def _step(self) -> bool:
        """One step; False when there is nothing to do, and this thread is about to end."""
        with self._changed:
            gone, self._cancelled = self._cancelled, set()
            waiting = tuple(self._waiting)
            if not waiting and not [row for row in self._rows if row.id not in gone]:
                for row in self._rows:
                    self._service.end(row.lease)
                self._rows = []
                self._working = False
                return False
        for row in self._rows:
            if row.id in gone:
                self._leave(row)
        self._rows = [row for row in self._rows if row.id not in gone]
        step = next_step(
            [RunningRow(row.id, len(row.tokens) - row.fed, row.reserve) for row in self._rows],
            [WaitingRow(n, len(asked.prompt), len(asked.prompt) + self._most_new(asked)) for n, asked, _ in waiting],
            self._limits,
        )
        self._admit(step.admit)
        self._prefixes.shrink(self._limits.cache_tokens - sum(row.reserve for row in self._rows))
        work = dict(step.work)
        groups: dict[int, list[_Row]] = {}
        for row in self._rows:
            layout = _layout_of(row.lease)
            if layout is None:
                self._begin_anew(row)  # and is fed from the next step on
            elif row.id in work:
                groups.setdefault(layout, []).append(row)
        for rows in groups.values():
            self._feed(rows, work)
        return True

    def _admit(self, names: Sequence[str]) -> None:
        with self._changed:  # what was cancelled meanwhile is not here any more
            entries = [entry for entry in self._waiting if entry[0] in names]
            self._waiting = deque(entry for entry in self._waiting if entry[0] not in names)
        for name, request, outbox in entries:
            row = _Row(
                name,
                request,
                outbox,
                self._most_new(request),
                self._service.begin(),
                list(request.prompt),
                *_fresh(request),
            )
            self._begin(row)
            self._rows.append(row)

    def _begin(self, row: _Row) -> None:
        live = row.lease.live
        if live is None:
            return  # pruned within this very step: the step begins it anew
        if not row.scores_prompt:  # else every token of the prompt must be computed
            others = (CachedText(tuple(other.tokens[: other.fed]), other.lease) for other in self._rows)
            row.fed = row.cached = self._prefixes.begin(row.lease, row.request.prompt, row.reserve, others)
        started = replace(started_event(live), prompt_tokens=len(row.request.prompt), cached_tokens=row.cached)
        self._say(row, [started])

    def _begin_anew(self, row: _Row) -> None:
        """Its live set has lost a stage: everything that it said is void."""
        self._service.end(row.lease)
        row.lease = self._service.begin()
        row.tokens, row.fed, row.cached = list(row.request.prompt), 0, 0
        row.prompt_scores, row.unsaid = [], []
        row.sampling, row.reader = _fresh(row.request)
        self._begin(row)

    def _say(self, row: _Row, events: list[GenerationEvent]) -> None:
        row.unsaid += events
        if not row.request.whole or isinstance(row.unsaid[-1], Ended):
            row.outbox.put([Said(row.id, event) for event in row.unsaid])
            row.unsaid = []

    def _leave(self, row: _Row) -> None:
        self._prefixes.keep(CachedText(tuple(row.tokens[: row.fed]), row.lease))

    def _feed(self, rows: Sequence[_Row], work: dict[str, int]) -> None:
        """One forward pass for generations on one live set."""
        by_lease = {row.lease: row for row in rows}

        def compute(held: Sequence[tuple[Lease[LiveSet], LiveSet]]) -> list[_Fed]:
            return self._pass([by_lease[lease] for lease, _ in held], work, held[0][1])

        results = self._service.turns([row.lease for row in rows], compute)
        ended = set()
        for row in rows:
            result = results.get(row.lease)
            if result is None:
                continue  # revoked meanwhile: the next step begins it anew
            row.fed += min(work[row.id], len(row.tokens) - row.fed)
            events = self._heard(row, result)
            if events and isinstance(events[-1], Ended):
                ended.add(row.id)
                self._leave(row)
            self._say(row, events)
        if ended:
            self._rows = [row for row in self._rows if row.id not in ended]

    def _pass(self, rows: Sequence[_Row], work: dict[str, int], live: LiveSet) -> list[_Fed]:
        texts, ends, positions = [], [], [0]
        for row in rows:
            if row.lease.memory is None:
                row.lease.memory = KeyValueCache(len(row.request.prompt) + min(row.most, 64))
            cache: KeyValueCache = row.lease.memory
            chunk = row.tokens[row.fed : row.fed + work[row.id]]
            texts.append((chunk, cache))
            ends.append(row.fed + len(chunk) == len(row.tokens))
            positions.append(positions[-1] + len(chunk))
        heads = live.heads(live.layout.chains)
        with torch.inference_mode():
            with applied(live.layout):
                hidden = packed_hidden(self._base, texts)
            scores = [
                self._prompt_scores(row, hidden[:, start:end], heads) if row.scores_prompt and row.made == 0 else []
                for row, start, end in zip(rows, positions[:-1], positions[1:], strict=True)
            ]
            drawing = [at for at, whole in enumerate(ends) if whole and rows[at].most > 0]
            tokens: list[Token] = []
            if drawing:
                logits = self._base.outputs(hidden[:, [positions[at + 1] - 1 for at in drawing]], heads)
                tokens = sample(logits, [rows[at].sampling for at in drawing])
        drawn = dict(zip(drawing, tokens, strict=True))
        return [_Fed(score, drawn.get(at)) for at, score in enumerate(scores)]

    def _prompt_scores(self, row: _Row, hidden: Tensor, heads: Sequence[Head]) -> list[Token]:
        """Of the prompt's tokens after each of those that were fed, as far as there are any."""
        following = row.tokens[row.fed + 1 : row.fed + 1 + hidden.shape[1]]
        block = max(1, _CHUNK_LOGITS // self._base.model.config.vocab_size)
        made: list[Token] = []
        for start in range(0, len(following), block):
            ids = following[start : start + block]
            logits = self._base.outputs(hidden[:, start : start + len(ids)], heads)
            made += scored(logits, ids, [row.request.params.logprobs or 0] * len(ids))
        return made

    def _heard(self, row: _Row, fed: _Fed) -> list[GenerationEvent]:
        """What a pass adds to what is heard of a generation."""
        events: list[GenerationEvent] = []
        row.prompt_scores += fed.scores
        if row.made == 0 and row.fed == len(row.tokens) and row.scores_prompt:
            events.append(PromptRead((Token(row.tokens[0]), *row.prompt_scores)))
        if row.most == 0 and row.fed == len(row.tokens):
            return [*events, Ended(Finish.LENGTH, tokens=row.made)]
        if fed.token is None:
            return events
        token = fed.token
        if token.id in row.request.eos and not row.request.params.ignore_eos:
            return [*events, Ended(Finish.STOP, row.reader.end() if row.reader else "", row.made)]
        row.tokens.append(token.id)
        if row.reader is not None:
            token = Token(token.id, row.reader.read(token.id), token.logprob, token.top)
            if row.reader.stopped:
                return [*events, token, Ended(Finish.STOP, tokens=row.made)]
        events.append(token)
        if row.made == row.most:
            rest = row.reader.end() if row.reader else ""
            finish = Finish.STOP if row.reader and row.reader.stopped else Finish.LENGTH
            events.append(Ended(finish, rest, row.made))
        return events

    def _fail(self, error: BaseException) -> None:
        """This thread ends: nobody may wait for what will not come."""
        told = error if isinstance(error, S3TError) else S3TError("the model's batch failed", "see its log, ask again")
        with self._changed:
            waiting, self._waiting = self._waiting, deque()
            rows, self._rows = self._rows, []
            self._working = False
        for row in rows:
            self._service.end(row.lease)
            row.outbox.put([Said(row.id, Failed(told))])
        for name, _, outbox in waiting:
            outbox.put([Said(name, Failed(told))])
        self._prefixes.clear()


def _layout_of(lease: Lease[LiveSet]) -> int | None:
    """Which layout the lease computes with; None when it was revoked. No caller may keep the live set itself."""
    live = lease.live
    return None if live is None else id(live.layout)


def started_event(live: LiveSet) -> Started:
    """The event that says what answers."""
    told = live.live
    return Started(told.version, told.depths, told.stages)


def _fresh(request: GenerationRequest) -> tuple[SamplingState, TextReader | None]:
    reader = None if request.decode is None else TextReader(request.decode, request.params.stop)
    return SamplingState(request.params, frozenset(request.prompt)), reader
