"""The way into Ray: a local one of our own, or the cluster at an address.

Sets the authentication mode itself in every case: Ray's own default depends on what an earlier
command left in the home folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError
from s3t_ray.plan.resources import Resources, check_room

NAMESPACE = "s3t_ray"


def actor_name(role: str, storage_uri: str) -> str:
    """Name of a run's actor in the cluster, from where the run is: two runs never share one."""
    return f"{role}-{hashlib.sha256(storage_uri.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Ray, for the time of the block: the cluster at `address` ("auto": the one on this machine, or of
    this job), or, for None, a local Ray that ends with the block. Yields whether nodes may join it.

    Inside a Ray job, None means the job's cluster. Raises ClusterError when it cannot be reached.
    """
    # Set before ray is imported: it reads them once.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and (os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID")):
        address = "auto"
    if address is None and not _token_is_set():
        # A token of this process alone: nothing is written to the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

    if address is None and (folder := ray_folder(os.environ)):
        os.environ["RAY_TMPDIR"] = folder

    import ray

    if ray.is_initialized():
        yield True
        return
    try:
        with _own_sigterm_handler():
            # "local": without an address Ray would join a cluster that anybody has running on this machine.
            place: dict[str, Any] = (
                {"address": address} if address else {"address": "local", "include_dashboard": False}
            )
            ray.init(**place, namespace=NAMESPACE, logging_level="warning", log_to_driver=False)
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, (ConnectionError, RuntimeError, ValueError)):
            raise
        ray.shutdown()  # what has started of it
        if "timed out during startup" in str(error):  # of no class of its own
            raise ClusterError(
                "Ray did not start within the half minute that it gives itself: this machine is busy, or short of "
                "memory",
                "end other work on it, or wait, and run the same command again; or give a cluster in --address",
            ) from error
        raise ClusterError(
            f"cannot reach Ray at {address or 'this machine'}: {error}",
            "check the address, RAY_AUTH_MODE and RAY_AUTH_TOKEN, or leave --address out to run locally",
        ) from error
    try:
        yield address is not None
    finally:
        ray.shutdown()


LONGEST_RAY_FOLDER = 107 - len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.10")
"""Bytes. The path of a Unix socket has at most 107 (unix(7), less the closing zero), and Ray puts its own in there."""


def ray_folder(environment: Mapping[str, str]) -> str | None:
    """Where a local Ray must keep its sockets and logs: /tmp if TMPDIR is too long for sockets; None: where it likes.

    Raises ClusterError when RAY_TMPDIR, which Ray looks at first, is too long itself.
    """
    chosen = environment.get("RAY_TMPDIR")
    if chosen is None:
        return "/tmp" if len(os.fsencode(environment.get("TMPDIR", ""))) > LONGEST_RAY_FOLDER else None
    if len(os.fsencode(chosen)) > LONGEST_RAY_FOLDER:
        raise ClusterError(
            f"RAY_TMPDIR = {chosen} has {len(os.fsencode(chosen))} bytes: the paths of Ray's sockets in it would be "
            "longer than Linux allows",
            f"set RAY_TMPDIR to a folder of at most {LONGEST_RAY_FOLDER} bytes, such as /tmp",
        )
    return None


@contextlib.contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Put back the handler that `ray.init` replaces by a silent exit: a job says what its stop means."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and callable(before):
        signal.signal(signal.SIGTERM, before)


def ray_logs() -> Path:
    """The folder of this node's logs of the connected cluster: what is in it, `ray logs` and the dashboard show."""
    import ray

    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "logs")


def check_fits_cluster(config: Config, grows: bool) -> None:
    """Raise ClusterError when the connected cluster can never hold the worker groups that the config asks for.

    `grows`: nodes may join it, which a run that asks an autoscaler waits for.
    """
    if not grows or config.workers.autoscale_to is None:
        check_room(config, nodes())


def nodes() -> list[Resources]:
    """What each node of the connected cluster has, of those that are alive now."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_can_heal(config: Config, grows: bool) -> None:
    """Raise ClusterError when the connected cluster holds not even one worker group now, and none is asked for."""
    if grows and config.workers.autoscale_to is not None:
        return
    try:
        check_room(config, nodes(), 1)
    except ClusterError as error:
        raise ClusterError(
            f"the records are erased, but pruned sequences cannot heal here: {error.problem}",
            "run `s3t train` with the run's config, or this command again, where a worker group has room",
        ) from error


def _token_is_set() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
