"""Loads a run's model for queries: in this process, or on a cluster in an actor with the resources of a rank.

`s3t eval`, `s3t generate`, `s3t audit --full` and the trials of a sweep use this. On a cluster, their own process is
often on the head node, which has neither a GPU nor enough memory for the base model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError, S3TError
from s3t_ray.plan.resources import bundles, check_room, shortage
from s3t_ray.run.run import Run
from s3t_ray.runtime.connect import connected, nodes

P = ParamSpec("P")
T = TypeVar("T")

READY_SECONDS = 15.0
"""If the actor has not started by then, the note says what it is waiting for."""


class ModelHost(Protocol):
    """Calls a function of a run in a process that may load its model."""

    def call(self, function: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(run, ...)`. Raises what it raises, and ClusterError if the process died."""
        ...

    def stream(
        self, function: Callable[Concatenate[Run, P], Iterator[T]], *args: P.args, **kw: P.kwargs
    ) -> Iterator[T]:
        """`call` for a generator function. Yields values as they are produced."""
        ...


@contextmanager
def model_host(run: Run, address: str | None, note: Callable[[str], None]) -> Iterator[ModelHost]:
    """The host for this run's model: the cluster at `address`, or this Ray job's cluster, or else this process.

    Raises ClusterError if no node of the cluster can ever hold a rank.
    """
    if address is None and not _in_cluster():
        yield InThisProcess(run)
        return
    with connected(address):
        host = OnCluster(run, note)
        try:
            yield host
        finally:
            host.close()


class InThisProcess:
    """See `ModelHost`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def call(self, function: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(self._run, *args, **kwargs)

    def stream(
        self, function: Callable[Concatenate[Run, P], Iterator[T]], *args: P.args, **kw: P.kwargs
    ) -> Iterator[T]:
        return function(self._run, *args, **kw)


class OnCluster:
    """See `ModelHost`. Ray must be connected. The actor exists from the first call until `close`."""

    def __init__(self, run: Run, note: Callable[[str], None]) -> None:
        self._run = run
        self._note = note
        self._actor: Any = None

    def call(self, function: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return _got(self._started().call.remote(function, args, kwargs))

    def stream(
        self, function: Callable[Concatenate[Run, P], Iterator[T]], *args: P.args, **kw: P.kwargs
    ) -> Iterator[T]:
        call = self._started().stream.options(num_returns="streaming")
        for value in call.remote(function, args, kw):
            yield _got(value)

    def close(self) -> None:
        """End the actor, which frees its memory and its GPU."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _started(self) -> Any:
        import ray

        if self._actor is None:
            config = self._run.config
            check_room(config, nodes(), 1)
            self._actor = ray.remote(ModelActor).options(**_options(config)).remote(self._run.location.storage_uri)
            if not ray.wait([self._actor.ready.remote()], timeout=READY_SECONDS)[0]:
                self._note(shortage(config, nodes(), 1).replace("worker group", "evaluation"))
        return self._actor


class ModelActor:
    """Calls functions of the run at `run_uri`, one at a time."""

    def __init__(self, run_uri: str) -> None:
        self._run = Run.open(run_uri)

    def ready(self) -> None:
        """Returns once the actor is up."""

    def call(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        return function(self._run, *args, **kwargs)

    def stream(
        self, function: Callable[..., Iterator[T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[T]:
        # Not `yield from`: Ray calls `send` on its generators, which plain iterators do not have.
        for value in function(self._run, *args, **kwargs):  # noqa: UP028
            yield value


def _options(config: Config) -> dict[str, Any]:
    """Ray options with the resources of one rank, which the model needs."""
    resources = dict(bundles(config)[0])
    cpus, gpus = resources.pop("CPU"), resources.pop("GPU", 0)
    environment = {"OMP_NUM_THREADS": str(max(1, int(cpus))), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "resources": resources,
        "scheduling_strategy": "SPREAD",  # otherwise it would have to fit in the bundle of a sweep's trial
        "runtime_env": {"env_vars": environment},
    }


def _got(value: Any) -> Any:
    """Get a value from Ray. Raises the original error of the actor, or ClusterError if the actor died."""
    import ray
    from ray.exceptions import RayError

    from s3t_ray.runtime.stage_failures import original

    try:
        return ray.get(value)
    except RayError as error:
        cause = original(error)
        if isinstance(cause, S3TError):
            raise cause from error
        if cause is error:
            raise ClusterError(
                f"the process with the model ended: {str(error).splitlines()[0]}",
                "check its log (`ray logs`) for a lack of memory or a lost node, and repeat the command",
            ) from error
        raise


def _in_cluster() -> bool:
    """Whether this process belongs to a Ray cluster: a job, or a process that Ray started or that joined the cluster.

    An address for `ray job submit` (http://...) does not count.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if os.environ.get("RAY_JOB_ID") or (address and "://" not in address):
        return True
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
