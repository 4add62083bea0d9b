"""Connects to Ray: starts a local instance, or joins the cluster at an address.

Always sets the authentication mode, because Ray's default depends on files that earlier commands left in
the home folder.
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
    """The name of a run's actor in the cluster, derived from the run's storage, so that no two runs share one."""
    return f"{role}-{hashlib.sha256(storage_uri.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Connect to Ray within this context. Yields whether nodes can join the cluster.

    `address`: the cluster ("auto": the one on this machine, or of this job). None: a local Ray that ends
    with the context, or inside a Ray job the job's cluster. Raises ClusterError if it cannot be reached.
    """
    # Set before importing ray, which reads them once.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and (os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID")):
        address = "auto"
    if address is None and not _token_is_set():
        # A token for this process only, so that nothing is written to the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

    if address is None and (folder := ray_folder(os.environ)):
        os.environ["RAY_TMPDIR"] = folder

    import ray

    if ray.is_initialized():
        yield True
        return
    try:
        with _own_sigterm_handler():
            # "local", because without an address Ray would join any cluster that is running on this machine.
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
            "check the address, RAY_AUTH_MODE and RAY_AUTH_TOKEN, or omit --address to run locally",
        ) from error
    try:
        yield address is not None
    finally:
        ray.shutdown()


LONGEST_RAY_FOLDER = 107 - len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.10")
"""In bytes. The path of a Unix socket has at most 107 (unix(7), without the final zero), including Ray's subfolders."""


def ray_folder(environment: Mapping[str, str]) -> str | None:
    """The folder for a local Ray's sockets and logs: /tmp if TMPDIR is too long for sockets; None: Ray's default.

    Raises ClusterError if RAY_TMPDIR, which takes precedence, is too long.
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
    """Restore the SIGTERM handler that `ray.init` replaces with a silent exit. Jobs report why they stop."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and callable(before):
        signal.signal(signal.SIGTERM, before)


def ray_logs() -> Path:
    """The connected cluster's log folder on this node. `ray logs` and the dashboard show its files."""
    import ray

    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "logs")


def check_fits_cluster(config: Config, grows: bool) -> None:
    """Raise ClusterError if the connected cluster can never hold the worker groups in the config.

    `grows`: whether nodes can join it; a run with an autoscaler waits for them.
    """
    if not grows or config.workers.autoscale_to is None:
        check_room(config, nodes())


def nodes() -> list[Resources]:
    """The resources of each live node in the connected cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_can_heal(config: Config, grows: bool) -> None:
    """Raise ClusterError if the connected cluster cannot hold a single worker group, and does not grow."""
    if grows and config.workers.autoscale_to is not None:
        return
    try:
        check_room(config, nodes(), 1)
    except ClusterError as error:
        raise ClusterError(
            f"the records are erased, but pruned sequences cannot heal here: {error.problem}",
            "run `s3t train` with the run's config, or repeat this command, on a cluster with room for a worker group",
        ) from error


def _token_is_set() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
