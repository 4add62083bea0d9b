"""The ensemble in service: the shards' deepest live models, answering together on one base model.

In: which chains are live, told by version. Out: logits, generations and held-out losses, each from one live set.
A prediction is the mean of the logits of the shards with depth 1 or more, or what the mean of their adapters says
(`ensemble: mean`); when all are dead the base model answers, and says so by its depths.

A prune works at once and cannot fail: stages that left are out of service before anything is read from the store,
so a new stage that turns out damaged raises, but leaves no stale one answering. Never holds a stage that is not
live, never writes. Every method may be called from any thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from s3t_ray.config.schema import Config
from s3t_ray.data.readers.inputs import Example
from s3t_ray.ensemble.answers import (
    Chain,
    Ended,
    EvalReport,
    Failed,
    Finish,
    Generated,
    GenerationEvent,
    Judgement,
    Live,
    Started,
    Token,
)
from s3t_ray.ensemble.batching.batch_engine import BatchEngine, started_event
from s3t_ray.ensemble.batching.batch_memory import batch_limits
from s3t_ray.ensemble.batching.generation_row import GenerationRequest
from s3t_ray.ensemble.batching.outbox import Outbox
from s3t_ray.ensemble.batching.packed_pass import install_attention
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.evaluate import evaluate
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.leases import Lease, LiveService, Revoked
from s3t_ray.ensemble.live_set import LiveSet, assemble
from s3t_ray.ensemble.loaded_stage import load_stage
from s3t_ray.ensemble.row_lora import applied, install_hooks
from s3t_ray.errors import ClusterError, ConfigError
from s3t_ray.store.store import Store
from s3t_ray.train.task_models.task_model import JudgingModel

T = TypeVar("T")

BASE_ROWS, BASE_PART = 4, 16
"""Of the base model alone, which few ask for: generations at once, and the part of the caches' memory."""


class Ensemble:
    """Loads the base model once; `threads` sets the CPU threads of this process (None: as they are)."""

    def __init__(self, config: Config, base: Path, store: Store, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._config = config
        self._store = store
        self._base = FrozenBase(config, base)
        install_hooks(self._base)
        dead: tuple[Chain, ...] = ((),) * config.shards
        self._service = LiveService(assemble(self._base, 0, dead, {}))
        self._engine = self._base_engine = None
        if self._base.task.generates:
            install_attention(self._base)
            limits = batch_limits(self._base, config.shards if config.ensemble == "logits" else 1)
            alone = LiveService(assemble(self._base, 0, dead, {}))  # never swapped: the base model is always live
            few = replace(limits, rows=BASE_ROWS, cache_tokens=max(1, limits.cache_tokens // BASE_PART))
            self._engine = BatchEngine(self._base, self._service, limits)
            self._base_engine = BatchEngine(self._base, alone, few)

    def live(self) -> Live:
        """What is in service."""
        return self._service.live.live

    def set_live(self, version: int, chains: Mapping[int, Chain]) -> int:
        """Put `chains` (stage ids of depth 1..d of each shard; a shard not named is dead) in service.

        Returns the version then in service: `version`, or a newer one that was told while stages were loading.
        When it returns, no answer can come from a stage outside `chains` any more; it waits at most for the
        forward passes that are running. Generations and evaluations that rest on a stage that left begin again.

        Raises ClusterError, and changes nothing, for a version older than the one in service: whoever counts
        from the wrong end must not take its prune for done. The same version again is carried out again.
        Raises StoreError (or TrainError) for a new stage that is missing, damaged or does not fit. Then of
        each shard what was loaded already is in service under `version`; call it again to load the rest.
        """
        told = self._checked(chains)
        kept = self._service.swap(lambda now: self._shrunk(now, version, told))
        if kept.chains == told:
            return version
        loaded = dict(kept.stages)
        for chain in told:
            for depth, name in enumerate(chain, start=1):
                if name not in loaded:
                    loaded[name] = load_stage(self._store, chain[:depth], self._base)
        return self._service.swap(
            lambda now: now if now.version > version else assemble(self._base, version, told, loaded)
        ).version

    def prune(self, version: int, live: Set[str]) -> int:
        """Take every stage out of service that is not in `live`, and the stages that rest on it; the version then.

        Reads nothing from the store, so that it cannot fail. A `set_live` of an older version that is on its
        way is void from here on.
        """
        return self._service.swap(lambda now: self._pruned(now, version, live)).version

    def logits(self, input_ids: Sequence[int]) -> Tensor:
        """The ensemble's averaged logits, float32: [T, V] for text, [C] of a task head."""
        example = Example(tuple(input_ids), ())
        return self._anew(lambda lease: self._service.turn(lease, lambda live: self._logits(live, example)))

    def judge(self, example: Example) -> Judgement:
        """What the ensemble says of one whole record. Raises ConfigError for a model that writes text."""
        task = self._base.task
        if not isinstance(task, JudgingModel):
            raise ConfigError(
                f"a {task.task.kind} model writes text and does not classify records", "generate an answer instead"
            )
        started, scores = self._anew(
            lambda lease: self._service.turn(lease, lambda live: (started_event(live), self._logits(live, example)))
        )
        return Judgement(task.answer(scores), task.scores(scores), started.version, started.depths, started.stages)

    def submit(self, name: str, request: GenerationRequest, outbox: Outbox) -> None:
        """Begin a generation beside all others; `outbox` hears of it under `name`. See `BatchEngine.submit`.

        When a stage that it uses is pruned it begins again from the prompt with what is live then, and says
        so with another `Started`: what came before is void, and must not be shown as part of the answer. From
        the same seed the new answer is the one that the new live set gives to a fresh call.
        """
        self._generating(request.of_base).submit(name, request, outbox)

    def cancel(self, name: str) -> None:
        """End a generation whose listener has gone; one that has ended already is no error."""
        for of_base in (False, True):
            self._generating(of_base).cancel(name)

    @property
    def load(self) -> int:
        """Generations that run or wait."""
        return sum(engine.load for engine in (self._engine, self._base_engine) if engine is not None)

    def stream(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        eos: Sequence[int] = (),
    ) -> Iterator[GenerationEvent]:
        """A generation as it happens: `Started`, tokens, `Ended`. See `submit`."""
        params = SamplingParams(max_new_tokens, temperature, top_p, seed)
        return self.follow(GenerationRequest(tuple(prompt_ids), params, frozenset(eos)))

    def follow(self, request: GenerationRequest) -> Iterator[GenerationEvent]:
        """The events of one generation. Each was live when it is handed out. Raises what ends the generation."""
        self._generating()
        self._base.check_length(len(request.prompt))  # before the first event: a caller may have promised by then
        return self._followed(request)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        eos: Sequence[int] = (),
    ) -> Generated:
        """The whole answer, from one live set. See `submit`."""
        started: list[Started] = []
        tokens: list[int] = []
        finish = Finish.LENGTH
        for event in self.stream(prompt_ids, max_new_tokens, temperature, top_p, seed, eos):
            match event:
                case Started():
                    started.append(event)
                    tokens.clear()
                case Token(id=token):
                    tokens.append(token)
                case Ended(finish=finish):
                    pass
        last = started[-1]
        return Generated(tuple(tokens), last.version, last.depths, last.stages, finish, len(started) - 1)

    def held_out_losses(self, examples: Sequence[Example], depths: Sequence[int] | None = None) -> EvalReport:
        """Scores with every shard cut at each of `depths` (None: 0..L), and as in service.

        Shards without a live stage are left out, as in service. Begins anew when a stage is pruned meanwhile.
        Raises DataError when no example has anything to predict.
        """
        wanted = tuple(range(self._config.slices + 1)) if depths is None else tuple(depths)
        if any(depth < 0 for depth in wanted):
            raise ConfigError(f"depths must be 0 or more, got {list(wanted)}", "use 0 for the base model")
        return self._anew(lambda lease: evaluate(self._base, self._service, lease, examples, wanted))

    @property
    def generates(self) -> bool:
        """Whether an answer is written token by token; else `judge` gives it."""
        return self._base.task.generates

    @property
    def eos(self) -> frozenset[int]:
        """Tokens with which the base model ends a text."""
        return self._base.eos

    def _anew(self, compute: Callable[[Lease[LiveSet]], T]) -> T:
        """`compute` on one lease from beginning to end, as often as that takes."""
        while True:
            with self._service.lease() as lease, suppress(Revoked):
                return compute(lease)

    def _generating(self, of_base: bool = False) -> BatchEngine:
        engine = self._base_engine if of_base else self._engine
        if engine is None:
            raise ConfigError(
                "this run's model judges whole records and does not generate text", "classify a record instead"
            )
        return engine

    def _followed(self, request: GenerationRequest) -> Iterator[GenerationEvent]:
        engine, outbox = self._generating(request.of_base), Outbox()
        name = secrets.token_hex(8)
        engine.submit(name, request, outbox)
        try:
            while True:
                taken = outbox.take(lambda: self._service.live.stage_ids, most=1)
                if taken.withheld:
                    engine.submit(name, request, outbox)
                for said in taken.released:
                    if isinstance(said.event, Failed):
                        raise said.event.error
                    yield said.event
                    if isinstance(said.event, Ended):
                        return
        finally:
            engine.cancel(name)

    def _logits(self, live: LiveSet, example: Example) -> Tensor:
        heads = live.heads(live.layout.chains)
        with torch.inference_mode(), applied(live.layout):
            hidden = self._base.hidden_of([example])[:, 0]
            if self._base.task.generates:
                return self._base.outputs(hidden, heads)
            return self._base.outputs(hidden[:, :1], heads)[0]

    def _shrunk(self, now: LiveSet, version: int, told: tuple[Chain, ...]) -> LiveSet:
        """Of `told`, each shard's stages that are loaded already, down to the first that is not."""
        if now.version > version:
            raise ClusterError(
                f"this replica serves live set {now.version}, but was given the older live set {version}",
                "increase the version of live sets from the one that the replica serves",
            )
        kept = tuple(_live_part(chain, now.stages) for chain in told)
        return assemble(self._base, version, kept, now.stages)

    def _pruned(self, now: LiveSet, version: int, live: Set[str]) -> LiveSet:
        if now.version > version:
            return now
        kept = tuple(_live_part(chain, live) for chain in now.chains)
        return replace(now, version=version) if kept == now.chains else assemble(self._base, version, kept, now.stages)

    def _checked(self, chains: Mapping[int, Chain]) -> tuple[Chain, ...]:
        shards = self._config.shards
        strange = sorted(set(chains) - set(range(shards)))
        if strange:
            raise ConfigError(f"the run has shards 0..{shards - 1}, but a chain is for {strange}", "correct the shards")
        return tuple(tuple(chains.get(shard, ())) for shard in range(shards))


def _live_part(chain: Chain, live: Container[str]) -> Chain:
    for length, name in enumerate(chain):
        if name not in live:
            return chain[:length]
    return chain
