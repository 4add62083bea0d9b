"""Runs many generations at once; they can join and leave the batch at every step (continuous batching).

In: prompts as tokens, and sampling settings. Out: events, in the outbox passed with each generation. `batch_plan`
decides which tokens a step feeds; this module runs the step. Each generation holds a lease on the live set that it
started with, and its cache is the lease's memory. A deletion therefore affects exactly the generations that use a
pruned stage, and those restart automatically. Generations on the same live set share a forward pass; those that
started before a stage was added run in a separate pass until they end.

One thread computes, and only while there is work. The other generations in a batch can affect a result only through
the rounding of matrix products, because the batch determines their shape.
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
"""The maximum number of queued generations. Further ones are refused."""
_CHUNK_LOGITS = 1 << 24  # per [positions x V] block: 64 MiB in float32


class BatchEngine:
    """Schedules and computes generations. Every method may be called from any thread."""

    def __init__(self, base: FrozenBase, service: LiveService[LiveSet], limits: BatchLimits) -> None:
        self._base = base
        self._service = service
        self._limits = limits
        self._arenas = CacheArenas(limits.cache_tokens)  # only the computing thread uses this and the next two
        self._prefixes = PrefixCache(service, self._arenas, limits.cache_tokens // 4)
        self._rows: list[GenerationRow] = []
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, GenerationRequest, Outbox]] = deque()
        self._cancelled: set[str] = set()
        self._working = False

    def submit(self, name: str, request: GenerationRequest, outbox: Outbox) -> None:
        """Queue a generation. Its events go to `outbox` under `name`, which the caller chooses.

        Raises DataError if the prompt is empty or too long, Overloaded if too many generations are queued.
        """
        self._base.check_length(len(request.prompt))
        tokens = len(request.prompt) + self._most_new(request)
        if tokens > self._limits.cache_tokens:
            raise DataError(
                f"prompt and answer may take {tokens} tokens, but this replica has memory for "
                f"{self._limits.cache_tokens}",
                "request fewer tokens",
            )
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise Overloaded(f"{MOST_WAITING} generations are already queued", "retry later, or add replicas")
            self._waiting.append((name, request, outbox))
            if not self._working:
                self._working = True
                # Not a daemon: the interpreter kills daemon threads at exit, and inside torch that aborts the process.
                # The thread ends with its last generation, or one step after the cancellation.
                threading.Thread(target=self._work, name="s3t-batch").start()

    def cancel(self, name: str) -> None:
        """Cancel a generation whose client has disconnected. It may have ended already."""
        with self._changed:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != name)
            if self._working:
                self._cancelled.add(name)

    @property
    def load(self) -> int:
        """The number of running and queued generations."""
        with self._changed:
            return len(self._rows) + len(self._waiting)

    def _most_new(self, request: GenerationRequest) -> int:
        most = request.params.max_new_tokens
        if self._base.max_tokens is not None:  # the last token is never fed back
            most = min(most, self._base.max_tokens - len(request.prompt) + 1)
        return most

    def _reserve(self, request: GenerationRequest) -> int:
        """The number of tokens that its cache may grow to."""
        return self._arenas.room(len(request.prompt) + self._most_new(request))

    def _work(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as error:
            self._fail(error)
            raise

    def _step(self) -> bool:
        """Run one step. Returns False if there is no work; this thread must then end."""
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
                self._begin_anew(row)  # it takes part again from the next step on
            elif row.id in work:
                groups.setdefault(layout, []).append(row)
        for rows in groups.values():
            self._feed(rows, work)
        return True

    def _admit(self, names: Sequence[str]) -> None:
        with self._changed:  # generations cancelled in the meantime are no longer queued
            entries = [entry for entry in self._waiting if entry[0] in names]
            self._waiting = deque(entry for entry in self._waiting if entry[0] not in names)
        rows = [
            GenerationRow(name, request, outbox, self._most_new(request), self._reserve(request), self._service.begin())
            for name, request, outbox in entries
        ]
        self._rows += rows  # before any of them begins: if one fails (out of memory), `_fail` must see all of them
        arenas = [self._arena(row) for row in rows]
        for arena, count in Counter(arenas).items():
            arena.expect(count)
        for row in rows:
            self._begin(row)

    def _arena(self, row: GenerationRow) -> CacheArena:
        """The arena that first holds its cache."""
        layout = _layout_of(row.lease)
        return self._arenas.arena(0 if layout is None else layout, row.first_room)

    def _begin(self, row: GenerationRow) -> None:
        live = row.lease.live
        if live is None:
            return  # pruned during this step, which restarts it
        if not row.scores_prompt:  # scoring the prompt requires computing all of its tokens
            others = (other.cached_text() for other in self._rows)
            row.fed = row.cached = self._prefixes.begin(row.lease, row.request.prompt, row.first_room, others)
        started = replace(started_event(live), prompt_tokens=len(row.request.prompt), cached_tokens=row.cached)
        row.say([started])

    def _begin_anew(self, row: GenerationRow) -> None:
        """Restart a generation whose live set lost a stage. Its earlier events become invalid."""
        self._service.end(row.lease)
        row.restart(self._service.begin())
        self._begin(row)

    def _leave(self, row: GenerationRow) -> None:
        self._prefixes.keep(row.cached_text())

    def _feed(self, rows: Sequence[GenerationRow], work: dict[str, int]) -> None:
        """Run one forward pass for generations on the same live set."""
        rows = sorted(rows, key=lambda row: _place(row, work))
        by_lease = {row.lease: row for row in rows}

        def compute(held: Sequence[tuple[Lease[LiveSet], LiveSet]]) -> list[Fed]:
            return self._pass([by_lease[lease] for lease, _ in held], work, held[0][1])

        results = self._service.turns([row.lease for row in rows], compute)
        ended = set()
        for row in rows:
            result = results.get(row.lease)
            if result is None:
                continue  # revoked in the meantime: the next step restarts it
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
            row.lease.memory = cache  # a swap may clear it at any time, which also invalidates this pass
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
        """The scores of the prompt tokens that follow the ones in this pass."""
        following = row.tokens[row.fed + 1 : row.fed + 1 + hidden.shape[1]]
        block = max(1, _CHUNK_LOGITS // self._base.model.config.vocab_size)
        made: list[Token] = []
        for start in range(0, len(following), block):
            ids = following[start : start + block]
            logits = self._base.outputs(hidden[:, start : start + len(ids)], heads)
            made += scored(logits, ids, [row.request.params.logprobs or 0] * len(ids))
        return made

    def _fail(self, error: BaseException) -> None:
        """End all generations with an error, because this thread ends."""
        told = error if isinstance(error, S3TError) else S3TError("the model's batch failed", "see its log, and retry")
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
    """Sort key within a pass: decoding generations first, in the order of their cache slots."""
    cache: KeyValueCache | None = row.lease.memory
    return (work[row.id] > 1, 0, 0) if cache is None else (work[row.id] > 1, cache.arena.room, cache.slot)


def _layout_of(lease: Lease[LiveSet]) -> int | None:
    """The id of the lease's layout; None if the lease was revoked. Callers must not keep the live set itself."""
    live = lease.live
    return None if live is None else id(live.layout)


def started_event(live: LiveSet) -> Started:
    """The event that names the live set of a generation."""
    told = live.live
    return Started(told.version, told.depths, told.stages)
