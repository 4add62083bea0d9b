"""A serving replica that follows the ledger and never releases an answer that uses a stale stage.

In: the run's storage URI. Out: answers. An answer is released only after a ledger read, started once
the answer was complete, has shown that all its stages are live. The guarantee therefore does not
depend on the scheduler: after a deletion's receipt, no stage that saw the record answers, and without
a readable ledger nothing is answered. The scheduler's `set_live` makes the replica prune at once and
confirm; new stages load in the background. This is a plain class; `app.py` makes it a Ray actor.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from s3t_ray.config.load import dump_config
from s3t_ray.config.location import CONFIG_FILE
from s3t_ray.ensemble.answers import (
    Answer,
    AnswerEvent,
    Chain,
    Ended,
    Failed,
    Finish,
    GenerationEvent,
    Judged,
    Live,
    Wish,
    answer_of,
)
from s3t_ray.ensemble.batching.outbox import Outbox, Said
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.ledger_watch import LedgerWatch
from s3t_ray.errors import LedgerError, S3TError, StoreError, TrainError
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard

if TYPE_CHECKING:
    from s3t_ray.ensemble.replica import Prompt

FOLLOW_SECONDS = 1.0
"""Seconds between ledger reads if there are no requests."""

TAKE_SECONDS = 1.0
"""Maximum wait for a batch of `heard`, and so the maximum delay until the listener notices `close`."""

LOAD_PATIENCE_SECONDS = 10.0
"""Maximum time that `set_live` waits for new stages to load: a third of the scheduler's own timeout."""

_log = logging.getLogger(__name__)


class Following:
    """One replica of the run at `run_uri`. Every method may be called from any thread."""

    def __init__(self, run_uri: str, threads: int | None = None) -> None:
        # Imports torch: only in the process that holds the model, not in the one that creates the actor.
        from s3t_ray.ensemble.replica import Replica

        self._uri = run_uri
        self._run = Run.open(run_uri)
        self._config_text = self._run.store.read_bytes(CONFIG_FILE)
        self._replica = Replica(
            dump_config(self._run.config), str(self._run.base), self._run.location.storage_uri, threads
        )
        self._watch = LedgerWatch(self._run.ledger, self._replica.prune)
        self._in_service: dict[int, Chain] = {}
        self._wake = threading.Event()
        self._loading = threading.Condition()
        self._rounds_begun = self._rounds_ended = 0  # rounds of loading
        self._problem: S3TError | None = None  # error of the last round
        self._closed = threading.Event()
        self._outbox = Outbox()
        self._asked: dict[str, Wish] = {}  # the requests that `heard` reports on
        self._asked_lock = threading.Lock()
        self.load()
        self._follower = threading.Thread(target=self._follow, name="s3t-follow", daemon=True)
        self._follower.start()

    def ready(self) -> Live:
        """The live set in service. Raises LedgerError if the ledger cannot be read, when nothing is answered."""
        self._watch.live()
        return self._replica.ready()

    def is_up(self) -> None:
        """Health check: returns if the process is alive. An unreachable ledger is no reason to restart it."""

    def set_live(self, version: int, chains: Mapping[int, Chain]) -> int:
        """Notification from the scheduler of a new live set. Returns `version` once no stale stage is in service.

        The replica reads what to serve from the ledger, where it was committed before. So replicas agree whichever
        scheduler notifies them, and a fenced scheduler has no influence. Waits up to LOAD_PATIENCE_SECONDS for new
        stages to load, and raises StoreError or TrainError if one is damaged.
        """
        try:
            self._watch.live()
        except LedgerError as error:
            # Nothing is answered without the ledger, so there is nothing to prune.
            _log.warning("the live set changed, but the ledger cannot be read: %s", error.problem)
            return version
        with self._loading:
            round_after_this = self._rounds_begun + 1
            self._wake.set()
            self._loading.wait_for(lambda: self._rounds_ended >= round_after_this, LOAD_PATIENCE_SECONDS)
            if self._rounds_ended >= round_after_this and isinstance(self._problem, StoreError | TrainError):
                raise self._problem
        return version

    def submit(self, name: str, wish: Wish) -> None:
        """Start an answer. `heard` reports its events under `name`, which must be unique.

        Raises DataError or ConfigError for an invalid request, Overloaded if too many generations are queued.
        """
        with self._asked_lock:
            self._asked[name] = wish
        try:
            self._replica.submit(name, wish, self._outbox)
        except S3TError:
            self._forget(name)
            raise
        self._end_if_cancelled(name)

    def cancel(self, name: str) -> None:
        """Cancel an answer whose client has disconnected. It may have ended already."""
        self._forget(name)
        self._replica.cancel(name)
        self._outbox.forget(name)

    def heard(self) -> Iterator[tuple[tuple[str, AnswerEvent], ...]]:
        """The events of the submitted answers, in batches, until `close`. For a single listener.

        Each batch costs one ledger read, which starts once all events in the batch are complete. Events that use a
        stage that is no longer live are left out. If the ledger cannot be read, all answers with pending events end
        with that error.
        """
        while not self._closed.is_set():
            yield self.take(TAKE_SECONDS)

    def take(self, timeout: float) -> tuple[tuple[str, AnswerEvent], ...]:
        """One batch of `heard`; empty if there was no event for `timeout` seconds."""
        try:
            taken = self._outbox.take(lambda: self._watch.live().live, timeout)
        except LedgerError as error:
            return tuple(self._give_up(self._outbox.drop(), error))
        for name in taken.withheld:
            self._ask_again(name)
        batch: list[tuple[str, AnswerEvent]] = []
        by_name: dict[str, list[GenerationEvent]] = {}
        for said in taken.released:
            by_name.setdefault(said.generation, []).append(said.event)
        for name, events in by_name.items():
            with self._asked_lock:
                wish = self._asked.get(name)
            if wish is None:
                continue  # cancelled in the meantime
            if isinstance(events[-1], Ended | Failed):
                self._forget(name)
            batch += [(name, heard) for heard in self._replica.heard(events, wish.params.logprobs is not None)]
        return tuple(batch)

    def complete(self, wish: Wish) -> Answer:
        """The complete answer, for a caller in this process or a Ray call. Raises what `submit` raises, and LedgerError
        if the ledger cannot be read."""
        began = time.monotonic()
        name, outbox, events = secrets.token_hex(8), Outbox(), list[GenerationEvent]()
        whole = replace(wish, whole=True)
        self._replica.submit(name, whole, outbox)
        while not (events and isinstance(events[-1], Ended | Failed)):
            try:
                taken = outbox.take(lambda: self._watch.live().live)
            except LedgerError:
                self._replica.cancel(name)
                raise
            events += [said.event for said in taken.released]
            if taken.withheld:
                self._replica.submit(name, whole, outbox)
        answer = answer_of(self._replica.heard(events, wish.params.logprobs is not None))
        return replace(answer, seconds=time.monotonic() - began)

    def beside_base(self, prompt: str, max_new_tokens: int) -> tuple[str | None, Answer]:
        """The greedy answers to one prompt from the base model (text) and from the live ensemble.

        The base's answer is None if the task does not generate text, because the base has no trained head. Raises
        what `complete` raises.
        """
        if not self._replica.generates:
            judged = self.judge(prompt)
            told = (judged.version, judged.depths, judged.stages)
            return None, Answer(judged.answer, *told, Finish.STOP, 0, 0.0)
        wish = Wish(prompt, SamplingParams(max_new_tokens))
        return self.complete(replace(wish, of_base=True)).text, self.complete(wish)

    def judge(self, text: str) -> Judged:
        """The model's prediction for one text. Raises DataError or ConfigError for an invalid request, LedgerError if
        the ledger cannot be read."""
        while True:
            judged = self._replica.judge(text)
            if self._watch.live().live.issuperset(judged.stages):
                return judged

    def tokenise(self, prompt: Prompt, as_written: bool) -> tuple[int, ...]:
        """The token ids that the model reads for `prompt`, including the template."""
        return self._replica.tokenise(prompt, as_written)

    def detokenise(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""
        return self._replica.detokenise(ids)

    def load(self) -> bool:
        """Load the live stages that the plan serves, according to the ledger. Returns False if the ledger moved on.

        Raises S3TError if a stage cannot be loaded. That stage is then out of service and the others serve.
        """
        position = self._watch.live().position
        self._read_config()
        chains = {shard: view_shard(self._run, shard).serving for shard in range(self._run.row.shards)}
        if chains == self._in_service and self._replica.ready().depths == _depths(chains):
            return True
        if self._replica.set_live(position, chains) != position:
            return False  # the ledger has moved on in the meantime
        self._in_service = chains
        return True

    def close(self) -> None:
        """Stop following and close the ledger. Nothing is answered after that."""
        self._closed.set()
        self._wake.set()
        self._follower.join()
        self._run.close()

    def _forget(self, name: str) -> None:
        with self._asked_lock:
            self._asked.pop(name, None)

    def _ask_again(self, name: str) -> None:
        """Submit an answer again that was complete, but used a stage that was pruned before its release."""
        with self._asked_lock:
            wish = self._asked.get(name)
        if wish is None:
            return
        try:
            self._replica.submit(name, wish, self._outbox)
        except S3TError as error:
            self._outbox.put([Said(name, Failed(error))])
        self._end_if_cancelled(name)

    def _end_if_cancelled(self, name: str) -> None:
        """Cancel again if `cancel` came while `submit` was still reading the prompt and found nothing to cancel."""
        with self._asked_lock:
            cancelled = name not in self._asked
        if cancelled:
            self._replica.cancel(name)

    def _give_up(self, names: Sequence[str], error: S3TError) -> Iterator[tuple[str, AnswerEvent]]:
        for name in names:
            self.cancel(name)
            yield name, Failed(error)

    def _read_config(self) -> None:
        """Adopt a config that a later `s3t train` wrote, with different orders or another budget."""
        text = self._run.store.read_bytes(CONFIG_FILE)
        if text != self._config_text:
            with Run.open(self._uri) as newer:
                self._run.config = newer.config
            self._config_text = text

    def _follow(self) -> None:
        told = ""
        while not self._closed.is_set():
            self._wake.wait(FOLLOW_SECONDS)
            self._wake.clear()
            if self._closed.is_set():
                return
            with self._loading:
                self._rounds_begun += 1
            problem: S3TError | None = None
            try:
                while not self.load():
                    pass  # the ledger has moved on in the meantime
            except S3TError as error:
                problem = error
                if error.problem != told:
                    _log.warning("cannot follow the run: %s", error.problem)
            told = "" if problem is None else problem.problem
            with self._loading:
                self._problem, self._rounds_ended = problem, self._rounds_begun
                self._loading.notify_all()


def _depths(chains: Mapping[int, Chain]) -> tuple[int, ...]:
    return tuple(len(chains[shard]) for shard in sorted(chains))
