"""The ensemble in service: the deepest live model of each shard, on one shared base model.

In: the live chains, with a version. Out: logits, generations and held-out losses, each from a single live set. A
prediction is the mean of the logits of the shards with a depth of at least 1, or the output of the mean of their
adapters (`ensemble: mean`). If all shards are dead, the base model answers, and the reported depths show it.

A prune takes effect immediately and cannot fail: stale stages leave service before anything is read from the store.
A damaged new stage raises an error, but no stale stage keeps answering. Never holds a stage that is not live, and
never writes. Every method may be called from any thread.
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
"""For the base model alone, which few requests use: maximum generations at once, and its share of cache memory."""


class Ensemble:
    """Loads the base model once. `threads` sets the CPU threads of this process (None: unchanged)."""

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
            alone = LiveService(assemble(self._base, 0, dead, {}))  # never swapped, since the base is always live
            few = replace(limits, rows=BASE_ROWS, cache_tokens=max(1, limits.cache_tokens // BASE_PART))
            self._engine = BatchEngine(self._base, self._service, limits)
            self._base_engine = BatchEngine(self._base, alone, few)

    def live(self) -> Live:
        """The live set in service."""
        return self._service.live.live

    def set_live(self, version: int, chains: Mapping[int, Chain]) -> int:
        """Put `chains` in service: the stage ids of depths 1..d per shard. A shard without a chain is dead.

        Returns the version then in service: `version`, or a newer one that was set while stages were loading. After
        it returns, no answer can come from a stage outside `chains`. It waits at most for the running forward passes.
        Generations and evaluations that use a removed stage restart.

        Raises ClusterError, and changes nothing, if `version` is older than the one in service; a caller with wrong
        versions must not believe that its prune took effect. Repeating the current version is allowed. Raises
        StoreError or TrainError if a new stage is missing, damaged or does not fit. In that case, the stages of each
        shard that were already loaded are in service under `version`; call it again to load the rest.
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
        """Remove every stage that is not in `live`, and the stages on top of it. Returns the version then in service.

        Reads nothing from the store, so it cannot fail. It overrides any running `set_live` of an older version.
        """
        return self._service.swap(lambda now: self._pruned(now, version, live)).version

    def logits(self, input_ids: Sequence[int]) -> Tensor:
        """The ensemble's averaged logits, float32: [T, V] for text, or [C] for a task head."""
        example = Example(tuple(input_ids), ())
        return self._anew(lambda lease: self._service.turn(lease, lambda live: self._logits(live, example)))

    def judge(self, example: Example) -> Judgement:
        """The ensemble's prediction for one record. Raises ConfigError for a model that generates text."""
        task = self._base.task
        if not isinstance(task, JudgingModel):
            raise ConfigError(
                f"a {task.task.kind} model generates text and does not classify records", "generate an answer instead"
            )
        started, scores = self._anew(
            lambda lease: self._service.turn(lease, lambda live: (started_event(live), self._logits(live, example)))
        )
        return Judgement(task.answer(scores), task.scores(scores), started.version, started.depths, started.stages)

    def submit(self, name: str, request: GenerationRequest, outbox: Outbox) -> None:
        """Start a generation alongside all others. Its events go to `outbox` under `name`. See `BatchEngine.submit`.

        If a stage that it uses is pruned, the generation restarts from the prompt with the new live set and emits
        another `Started`. Events before that are invalid and must not be shown as part of the answer. With the same
        seed, the new answer is the one that a new call would get from the new live set.
        """
        self._generating(request.of_base).submit(name, request, outbox)

    def cancel(self, name: str) -> None:
        """Cancel a generation whose client has disconnected. It may have ended already."""
        for of_base in (False, True):
            self._generating(of_base).cancel(name)

    @property
    def load(self) -> int:
        """The number of running and queued generations."""
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
        """Stream a generation: `Started`, tokens, `Ended`. See `submit`."""
        params = SamplingParams(max_new_tokens, temperature, top_p, seed)
        return self.follow(GenerationRequest(tuple(prompt_ids), params, frozenset(eos)))

    def follow(self, request: GenerationRequest) -> Iterator[GenerationEvent]:
        """The events of one generation. All stages behind an event are live when it is yielded.

        Raises DataError for an unreadable prompt, and any error that ends the generation.
        """
        self._generating()
        self._base.check_length(len(request.prompt))  # here and not at the first event, when a response may be open
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
        """The complete answer, from one live set. See `submit`."""
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
        """The scores with every shard limited to each of `depths` (None: 0..L), and as in service.

        Shards without a live stage are left out, as in service. Restarts if a stage is pruned in the meantime. Raises
        ConfigError for a negative depth, DataError if no example has anything to predict.
        """
        wanted = tuple(range(self._config.slices + 1)) if depths is None else tuple(depths)
        if any(depth < 0 for depth in wanted):
            raise ConfigError(f"depths must be 0 or more, got {list(wanted)}", "use 0 for the base model")
        return self._anew(lambda lease: evaluate(self._base, self._service, lease, examples, wanted))

    @property
    def generates(self) -> bool:
        """Whether the model generates text. If not, use `judge`."""
        return self._base.task.generates

    @property
    def eos(self) -> frozenset[int]:
        """The base model's end-of-sequence tokens."""
        return self._base.eos

    def _anew(self, compute: Callable[[Lease[LiveSet]], T]) -> T:
        """Run `compute` on one lease. Repeat it with a new lease each time the lease is revoked."""
        while True:
            with self._service.lease() as lease, suppress(Revoked):
                return compute(lease)

    def _generating(self, of_base: bool = False) -> BatchEngine:
        engine = self._base_engine if of_base else self._engine
        if engine is None:
            raise ConfigError(
                "this run's model classifies records and does not generate text", "classify a record instead"
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
        """The live set with each chain of `told` cut before its first stage that is not loaded yet."""
        if now.version > version:
            raise ClusterError(
                f"this replica serves live set {now.version}, but was given the older live set {version}",
                "use a version that is at least the one that the replica serves",
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
