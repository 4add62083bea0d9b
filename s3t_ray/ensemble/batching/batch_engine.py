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
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from s3t_ray.ensemble.answers import Failed, Started, Token
from s3t_ray.ensemble.batching.batch_plan import BatchLimits, RunningRow, WaitingRow, next_step
from s3t_ray.ensemble.batching.cache_arena import CacheArena, CacheArenas, KeyValueCache
from s3t_ray.ensemble.batching.generation_row import Fed, GenerationRequest, GenerationRow
from s3t_ray.ensemble.batching.outbox import Outbox, Said
from s3t_ray.ensemble.batching.packed_pass import packed_hidden
from s3t_ray.ensemble.batching.prefix_cache import PrefixCache
from s3t_ray.ensemble.batching.sampling import sample, scored
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService
from s3t_ray.ensemble.live_set import LiveSet
from s3t_ray.ensemble.row_lora import applied
from s3t_ray.errors import DataError, Overloaded, S3TError
from s3t_ray.train.task_models.task_model import Head

MOST_WAITING = 1024
"""Generations that wait for a place; a further one is refused."""
_CHUNK_LOGITS = 1 << 24  # of one [positions x V] block: 64 MiB in float32


class BatchEngine:
    """Every method may be called from any thread."""

    def __init__(self, base: FrozenBase, service: LiveService[LiveSet], limits: BatchLimits) -> None:
        self._base = base
        self._service = service
        self._limits = limits
        self._arenas = CacheArenas(limits.cache_tokens)  # of the computing thread, as are the next two
        self._prefixes = PrefixCache(service, self._arenas, limits.cache_tokens // 4)
        self._rows: list[GenerationRow] = []
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, GenerationRequest, Outbox]] = deque()
        self._cancelled: set[str] = set()
        self._working = False

    def submit(self, name: str, request: GenerationRequest, outbox: Outbox) -> None:
        """Begin a generation under a name of the caller's, by which `outbox` hears of it.

        Raises DataError for a prompt that cannot be read, Overloaded when too many wait.
        """
        self._base.check_length(len(request.prompt))
        tokens = len(request.prompt) + self._most_new(request)
        if tokens > self._limits.cache_tokens:
            raise DataError(
                f"prompt and answer may take {tokens} tokens, but this replica has memory for "
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

    def _reserve(self, request: GenerationRequest) -> int:
        """Tokens that its cache may take room for."""
        return self._arenas.room(len(request.prompt) + self._most_new(request))

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
            [WaitingRow(name, len(asked.prompt), self._reserve(asked)) for name, asked, _ in waiting],
            self._limits,
        )
        self._admit(step.admit)
        self._prefixes.shrink(self._limits.cache_tokens - sum(row.reserve for row in self._rows))
        work = dict(step.work)
        groups: dict[int, list[GenerationRow]] = {}
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
        rows = [
            GenerationRow(name, request, outbox, self._most_new(request), self._reserve(request), self._service.begin())
            for name, request, outbox in entries
        ]
        self._rows += rows  # before any begins: when one fails (memory), `_fail` must know them all
        arenas = [self._arena(row) for row in rows]
        for arena, count in Counter(arenas).items():
            arena.expect(count)
        for row in rows:
            self._begin(row)

    def _arena(self, row: GenerationRow) -> CacheArena:
        """Where its cache is to lie at first."""
        layout = _layout_of(row.lease)
        return self._arenas.arena(0 if layout is None else layout, row.first_room)

    def _begin(self, row: GenerationRow) -> None:
        live = row.lease.live
        if live is None:
            return  # pruned within this very step: the step begins it anew
        if not row.scores_prompt:  # else every token of the prompt must be computed
            others = (other.cached_text() for other in self._rows)
            row.fed = row.cached = self._prefixes.begin(row.lease, row.request.prompt, row.first_room, others)
        started = replace(started_event(live), prompt_tokens=len(row.request.prompt), cached_tokens=row.cached)
        row.say([started])

    def _begin_anew(self, row: GenerationRow) -> None:
        """Its live set has lost a stage: everything that it said is void."""
        self._service.end(row.lease)
        row.restart(self._service.begin())
        self._begin(row)

    def _leave(self, row: GenerationRow) -> None:
        self._prefixes.keep(row.cached_text())

    def _feed(self, rows: Sequence[GenerationRow], work: dict[str, int]) -> None:
        """One forward pass for generations on one live set."""
        rows = sorted(rows, key=lambda row: _place(row, work))
        by_lease = {row.lease: row for row in rows}

        def compute(held: Sequence[tuple[Lease[LiveSet], LiveSet]]) -> list[Fed]:
            return self._pass([by_lease[lease] for lease, _ in held], work, held[0][1])

        results = self._service.turns([row.lease for row in rows], compute)
        ended = set()
        for row in rows:
            result = results.get(row.lease)
            if result is None:
                continue  # revoked meanwhile: the next step begins it anew
            if row.hear(result, min(work[row.id], len(row.tokens) - row.fed)):
                ended.add(row.id)
                self._leave(row)
        if ended:
            self._rows = [row for row in self._rows if row.id not in ended]

    def _pass(self, rows: Sequence[GenerationRow], work: dict[str, int], live: LiveSet) -> list[Fed]:
        texts, ends, positions = [], [], [0]
        for row in rows:
            chunk = row.tokens[row.fed : row.fed + work[row.id]]
            room = max(row.fed + len(chunk), row.first_room)
            cache = self._arenas.fitting(row.lease.memory, id(live.layout), room)
            row.lease.memory = cache  # a swap may empty it again at any moment: then this pass is void
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
        return [Fed(score, drawn.get(at)) for at, score in enumerate(scores)]

    def _prompt_scores(self, row: GenerationRow, hidden: Tensor, heads: Sequence[Head]) -> list[Token]:
        """Of the prompt's tokens after each of those that were fed, as far as there are any."""
        following = row.tokens[row.fed + 1 : row.fed + 1 + hidden.shape[1]]
        block = max(1, _CHUNK_LOGITS // self._base.model.config.vocab_size)
        made: list[Token] = []
        for start in range(0, len(following), block):
            ids = following[start : start + block]
            logits = self._base.outputs(hidden[:, start : start + len(ids)], heads)
            made += scored(logits, ids, [row.request.params.logprobs or 0] * len(ids))
        return made

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


def _place(row: GenerationRow, work: dict[str, int]) -> tuple[bool, int, int]:
    """Where a generation stands in a pass: those that decode first, side by side if their caches are."""
    cache: KeyValueCache | None = row.lease.memory
    return (work[row.id] > 1, 0, 0) if cache is None else (work[row.id] > 1, cache.arena.room, cache.slot)


def _layout_of(lease: Lease[LiveSet]) -> int | None:
    """Which layout the lease computes with; None when it was revoked. No caller may keep the live set itself."""
    live = lease.live
    return None if live is None else id(live.layout)


def started_event(live: LiveSet) -> Started:
    """The event that says what answers."""
    told = live.live
    return Started(told.version, told.depths, told.stages)
