"""Answers the page's prompts with a model in this process, or with one of the service's replicas.

In: a prompt. Out: a `Comparison` of the greedy answers of the base model and of the live models. The live answer is
returned only after a ledger read shows that all its stages are live (see `Following`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from s3t_ray.errors import ClusterError, Overloaded
from s3t_ray.run.run import Run
from s3t_ray.serve.page.run_desk import Comparison

if TYPE_CHECKING:
    from s3t_ray.ensemble.answers import Answer
    from s3t_ray.ensemble.following_replica import Following

ANSWER_TOKENS = 96
MOST_QUESTIONS = 4
"""Maximum concurrent prompts from the page, because API users have priority."""
ANSWER_SECONDS = 300.0


class OwnModel:
    """Loads the model at the first prompt, and keeps it."""

    def __init__(self, run: Run) -> None:
        self._uri = run.location.storage_uri
        self._loading = threading.Lock()
        self._turns = _Turns()
        self._model: Following | None = None

    def ask(self, prompt: str) -> Comparison:
        """See `run_desk.Asker`."""
        with self._turns.turn():
            began = time.monotonic()
            return _compared(*self._loaded().beside_base(prompt, ANSWER_TOKENS), began)

    def close(self) -> None:
        """Unload the model."""
        with self._loading:
            if self._model is not None:
                self._model.close()

    def _loaded(self) -> Following:
        with self._loading:
            if self._model is None:
                from s3t_ray.ensemble.following_replica import Following

                self._model = Following(self._uri)
            return self._model


class ServedModel:
    """Asks any of the service's replicas in this Ray cluster."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._turns = _Turns()

    def ask(self, prompt: str) -> Comparison:
        """See `run_desk.Asker`. ClusterError: no replica is running."""
        from s3t_ray.runtime.ray_host import find_replicas

        with self._turns.turn():
            began = time.monotonic()
            for replica in find_replicas(self._run).values():
                found = replica.beside_base(prompt, ANSWER_TOKENS, ANSWER_SECONDS)
                if found is not None:
                    return _compared(*found, began)
        raise ClusterError("no copy of the model is running", "try again in a moment, or see the log of the replicas")


class _Turns:
    """Maximum number of questions at once; further ones are refused."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(MOST_QUESTIONS)

    @contextmanager
    def turn(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise Overloaded(f"{MOST_QUESTIONS} questions from this page are being answered", "try again in a moment")
        try:
            yield
        finally:
            self._free.release()


def _compared(base: str | None, live: Answer, began: float) -> Comparison:
    return Comparison(base=base, live=live.text, depths=live.depths, seconds=time.monotonic() - began)
