"""A serving replica that follows the ledger: it never hands out an answer that rests on a stale stage.

In: the run's storage URI. Out: answers, each released only after a ledger read that began when it was
complete showed every stage it rests on live. So the promise needs no scheduler: from a deletion's
receipt on nothing is answered by a stage that saw the record, and when the ledger cannot be read
nothing is answered at all. The scheduler's `set_live` makes it prune at once and confirms; what is new
is loaded in the background. A plain class; `app.py` makes it a Ray actor.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence

from s3t_ray.config.load import dump_config
from s3t_ray.config.location import CONFIG_FILE
from s3t_ray.ensemble.answers import Chain, Completion, Ended, Live, Piece, Started, Wish
from s3t_ray.ensemble.ledger_watch import LedgerWatch
from s3t_ray.ensemble.replica import Replica
from s3t_ray.errors import LedgerError, S3TError, StoreError, TrainError
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard

FOLLOW_SECONDS = 1.0
"""Between two looks at the ledger when nobody asks for an answer."""

LOAD_PATIENCE_SECONDS = 10.0
"""How long the scheduler's word waits for new stages to load; a third of what the scheduler waits."""

_log = logging.getLogger(__name__)


class Following:
    """One replica of the run at `run_uri`. Every method may be called from any thread."""

    def __init__(self, run_uri: str, threads: int | None = None) -> None:
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
        self._rounds_begun = self._rounds_ended = 0  # of loading
        self._problem: S3TError | None = None  # of the last round
        self._closed = threading.Event()
        self._streams: dict[str, threading.Event] = {}  # by request: set when its listener has gone
        self.load()
        self._follower = threading.Thread(target=self._follow, name="s3t-follow", daemon=True)
        self._follower.start()

    def ready(self) -> Live:
        """What is in service. Raises LedgerError when the ledger cannot be read: then nothing is answered."""
        self._watch.live()
        return self._replica.ready()

    def is_up(self) -> None:
        """Returns, so that whoever asks knows that this process lives: a ledger out of reach is no reason to end it."""

    def set_live(self, version: int, chains: Mapping[int, Chain]) -> int:
        """The scheduler's word that the live set has changed. Returns `version` once nothing stale is in service.

        What to serve is read from the ledger, where it was committed before: so replicas agree whichever
        scheduler tells them, and a fenced one can tell them nothing. New stages are loaded meanwhile, and
        waited for a while: StoreError or TrainError tells of a damaged one.
        """
        try:
            self._watch.live()
        except LedgerError as error:
            # Nothing is answered without the ledger, so there is nothing to take back.
            _log.warning("told of a change, but the ledger cannot be read: %s", error.problem)
            return version
        with self._loading:
            round_after_this = self._rounds_begun + 1
            self._wake.set()
            self._loading.wait_for(lambda: self._rounds_ended >= round_after_this, LOAD_PATIENCE_SECONDS)
            if self._rounds_ended >= round_after_this and isinstance(self._problem, StoreError | TrainError):
                raise self._problem
        return version

    def complete(self, wish: Wish) -> Completion:
        """The whole answer. Raises DataError, ConfigError for what cannot be asked, LedgerError: no answer."""
        while True:
            answer = self._replica.generate(wish.prompt, wish.max_new_tokens, wish.temperature, wish.top_p, wish.seed)
            if self._released(answer.stages):
                return Completion(answer, self._replica.prompt_tokens(wish.prompt))

    def stream(self, request: str, wish: Wish) -> Iterator[Started | Piece | Ended]:
        """The answer as it grows, until it ends or `cancel(request)`. A further `Started` voids what came before."""
        gone = self._streams[request] = threading.Event()
        try:
            while True:
                for event in self._checked(wish):
                    if gone.is_set():
                        return
                    yield event
                    if isinstance(event, Ended):
                        return
        finally:
            del self._streams[request]

    def cancel(self, request: str) -> None:
        """End a stream whose listener has gone; one that has ended already is no error."""
        if (gone := self._streams.get(request)) is not None:
            gone.set()

    def load(self) -> bool:
        """Put in service what the ledger says is live and the plan serves; whether that is done.

        Raises S3TError: what could not be loaded is out of service, the rest serves.
        """
        position = self._watch.live().position
        self._read_config()
        chains = {shard: view_shard(self._run, shard).serving for shard in range(self._run.row.shards)}
        if chains == self._in_service and self._replica.ready().depths == _depths(chains):
            return True
        if self._replica.set_live(position, chains) != position:
            return False  # the ledger has moved on meanwhile
        self._in_service = chains
        return True

    def close(self) -> None:
        """Stop following; the ledger is closed, so nothing is answered any more."""
        self._closed.set()
        self._wake.set()
        self._follower.join()
        self._run.close()

    def _released(self, stages: Sequence[str]) -> bool:
        """Whether an answer that is complete may go out: every stage is live in a read that begins now."""
        return self._watch.live().live.issuperset(stages)

    def _checked(self, wish: Wish) -> Iterator[Started | Piece | Ended]:
        """One stream of the ensemble without what rests on stale stages; it begins anew by itself then.

        After an end that was withheld the caller asks again.
        """
        stages: tuple[str, ...] = ()
        for event in self._replica.stream(wish.prompt, wish.max_new_tokens, wish.temperature, wish.top_p, wish.seed):
            if isinstance(event, Started):
                stages = event.stages
            if self._released(stages):
                yield event

    def _read_config(self) -> None:
        """Follow a config that a later `s3t train` gave the run: other orders, another budget."""
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
                    pass  # the ledger has moved on meanwhile
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
