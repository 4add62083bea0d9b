"""`s3t serve` and `jobs/serve.py`: the HTTP service of a run, until the process is stopped."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Annotated, Any

import typer

from s3t_ray.cli.options import AddressOption, RunArgument
from s3t_ray.errors import ClusterError, ConfigError

APP = "s3t"
LOOK_SECONDS = 5.0
SAID_AFTER_LOOKS = 6
"""After this many checks in which an application is not up (half a minute), say what may be missing."""
BAD_LOOKS = 60
"""After this many checks in which an application is broken (5 minutes of Serve's own retries), the job fails."""
_LAST_LINES = 3


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example, with S3T_SERVE_TOKEN and S3T_DELETE_TOKEN set:\n$ s3t serve runs/alpaca --port 8000")(
        serve
    )


def serve(
    run: RunArgument,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Number of copies of the model.")] = 1,
    cpus: Annotated[int, typer.Option("--cpus", min=1, help="CPU cores per copy.")] = 1,
    gpus: Annotated[
        float | None, typer.Option("--gpus", min=0, help="GPUs per copy; default: 1 if the run trains on GPUs.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = 8000,
    prefix: Annotated[str, typer.Option("--prefix", help="URL path prefix of the service.")] = "/",
    tls_key: Annotated[str | None, typer.Option("--tls-key", help="Private key (PEM), on every node.")] = None,
    tls_cert: Annotated[str | None, typer.Option("--tls-cert", help="Certificate (PEM), on every node.")] = None,
    schedule: Annotated[
        bool, typer.Option("--schedule/--no-schedule", help="Keep a scheduler running that completes deletions.")
    ] = True,
    keys_resource: Annotated[
        str | None,
        typer.Option("--keys-resource", help="Ray resource of the nodes that hold the keys; default: all nodes do."),
    ] = None,
    address: AddressOption = None,
) -> None:
    """Serve the run's live models, and accept deletions, over HTTP until stopped."""
    from s3t_ray.cli.show.output import note
    from s3t_ray.run.run import Run
    from s3t_ray.runtime.connect import connected
    from s3t_ray.serve.access.whole_bodies import CALLBACK, CALLBACK_PATH

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # a job has its own
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as service managers end a service
    if (tls_key is None) != (tls_cert is None):
        raise ConfigError("--tls-key and --tls-cert must be given together", "give both, or neither")
    with Run.open(run) as opened:
        _ = opened.base  # refuse a replaced base here: an error of a replica comes minutes later, wrapped by Ray
    os.environ.setdefault(CALLBACK, CALLBACK_PATH)  # reaches the proxy of a Ray that is started here
    with connected(address):
        from ray import serve as ray_serve

        from s3t_ray.serve.app import build, build_deletions, build_front
        from s3t_ray.serve.http import DELETION_PATH, MODEL_PATH
        from s3t_ray.serve.service_settings import ServiceSettings

        settings = ServiceSettings(
            run=run, replicas=replicas, cpus=cpus, gpus=gpus, schedule=schedule, keys_resource=keys_resource
        )
        root, name = prefix.rstrip("/"), APP if prefix == "/" else f"{APP}-{prefix.strip('/').replace('/', '-')}"
        applications = {
            f"{name}-deletions": (build_deletions(settings), root + DELETION_PATH),
            f"{name}-front": (build_front(settings), root or "/"),
            name: (build(settings), root + MODEL_PATH),
        }
        tls = {} if tls_key is None else {"ssl_keyfile": tls_key, "ssl_certfile": tls_cert}
        others = _applications()
        if others:
            if tls:
                raise ClusterError(
                    f"Ray Serve already runs {', '.join(others)} here, and keeps its address and its TLS settings",
                    "stop that first, or leave --tls-key and --tls-cert out if it has TLS",
                )
            note("Ray Serve is already running here: this service uses its address, not --host and --port")
        else:
            if ray_serve.status().proxies:
                ray_serve.shutdown()  # left over from a stopped service; it would keep its address
            check_port(host, port)
        _say_what_is_missing(replicas * cpus)
        _start_proxy({"host": host, "port": port, **tls})
        try:
            for each, (application, path) in applications.items():
                _deploy(each, application, path)
            note(f"serving {run} at {'https' if tls else 'http'}://{host}:{port}{root}{MODEL_PATH}")
            _watch(tuple(applications), replicas * cpus)
        finally:
            for each in applications:
                ray_serve.delete(each, _blocking=False)


def _deploy(name: str, application: Any, path: str) -> None:
    """Deploy an application. Raises ClusterError, with the end of Ray Serve's message, if that fails."""
    from ray import serve as ray_serve

    try:
        ray_serve.run(application, name=name, route_prefix=path, blocking=False)
    except RuntimeError as error:
        found = ray_serve.status().applications.get(name)
        told = (
            "" if found is None else "\n".join((found.message, *(each.message for each in found.deployments.values())))
        )
        lines = [line.strip() for line in told.splitlines() if line.strip()] or [str(error)]
        raise ClusterError(
            f"{name} did not start: {' / '.join(lines[-_LAST_LINES:])}",
            "fix the cause and run the command again; the logs of its replicas have the details",
        ) from error


def _start_proxy(options: dict[str, Any]) -> None:
    from ray import serve as ray_serve
    from ray.exceptions import RayError

    try:
        ray_serve.start(http_options=options)
    except RayError as error:
        raise ClusterError(
            "Ray Serve's HTTP proxy did not start: it was not ready in time, or it ended",
            "see its log; on a busy machine, set RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=60 where Ray starts",
        ) from error


def check_port(host: str, port: int) -> None:
    """Raise ClusterError if something already listens there.

    Ray Serve would start anyway, because its sockets can share a port. Each request, and each deletion, would go to
    one of the two at random.
    """
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are ending do not count
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                "stop what listens there, or give another --port",
            ) from error


def _say_what_is_missing(cpus: int) -> None:
    import ray

    from s3t_ray.cli.show.output import note

    there = int(ray.cluster_resources().get("CPU", 0))
    if cpus > there:
        note(
            f"the replicas need {cpus} CPUs, and this cluster has {there}: some wait until it grows. "
            "If it does not grow, give fewer --replicas or --cpus"
        )


def _applications() -> list[str]:
    """Applications of Ray Serve in this cluster; waits for those being deleted."""
    from ray import serve as ray_serve

    pause = threading.Event()
    while True:
        states = {name: str(app.status.value) for name, app in ray_serve.status().applications.items()}
        if "DELETING" not in states.values():
            return list(states)
        pause.wait(1.0)


def waiting_for(cpus: int, free: float, there: float) -> str:
    """What a service that does not come up may be waiting for. `cpus`: of all its copies of the model."""
    needs = f"the copies of the model need {cpus} CPUs in total"
    if cpus > there:
        return f"{needs}, and the cluster has {there:g}: give fewer --replicas or --cpus, or add nodes"
    return (
        f"{needs}; of the cluster's {there:g}, {free:g} are free now. A training or another service may use the "
        "others: give fewer --replicas, wait until it ends, or lower workers.groups"
    )


def _watch(names: tuple[str, ...], cpus: int) -> None:
    """Runs until the process is stopped. Raises ClusterError if one of the applications stays broken."""
    import ray
    from ray import serve as ray_serve

    from s3t_ray.cli.show.output import note

    pause, bad, before = threading.Event(), dict.fromkeys(names, 0), dict.fromkeys(names, "")
    slow = 0
    while not pause.wait(LOOK_SECONDS):
        found = ray_serve.status().applications
        for name in names:
            app = found.get(name)
            state = "gone" if app is None else str(app.status.value)
            if state != before[name]:
                note(f"{name}: {state.lower()}")
                before[name] = state
            bad[name] = 0 if state in ("RUNNING", "DEPLOYING") else bad[name] + 1
            if app is None or bad[name] > BAD_LOOKS:
                raise ClusterError(
                    f"{name} is {state.lower()}: {'' if app is None else app.message}", "see the logs of its replicas"
                )
        slow = slow + 1 if "DEPLOYING" in before.values() else 0
        if slow == SAID_AFTER_LOOKS:
            free, there = (found.get("CPU", 0.0) for found in (ray.available_resources(), ray.cluster_resources()))
            note(f"not up after {slow * LOOK_SECONDS:.0f} s: {waiting_for(cpus, free, there)}")
