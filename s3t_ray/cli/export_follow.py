"""`s3t export --follow`: keep an external server up to date with the live adapters until stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from s3t_ray.errors import ConfigError, S3TError

if TYPE_CHECKING:
    from s3t_ray.run.run import Run
    from s3t_ray.serve.follow.follower import Follower, Target

LOOK_SECONDS = 1.0


def follow(run: Run, kind: str, folder: Path, server: str | None, name: str | None) -> None:
    """Runs until SIGINT or SIGTERM. Then it unloads everything, and deletions no longer wait for this server."""
    from s3t_ray.cli.show.output import note
    from s3t_ray.serve.follow.follower import Follower

    target = _target(kind, folder, server)
    named = name or (folder.name if server is None else server)
    follower = Follower(run, named, target, folder)
    note(f"{named} follows run {run.row.name!r}: deletions wait for it until this command is stopped")
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    _keep_looking(follower, stop)
    try:
        follower.close()
    except S3TError as error:
        note(
            f"{named} may still hold adapters, so deletions keep waiting for it: {error.problem}. If its server is "
            f"gone, run: s3t export {run.location.storage_uri} --unfollow {named}"
        )
        raise
    note(f"{named} no longer holds an adapter of this run")


def unfollow(run: Run, name: str) -> None:
    """Raises ConfigError if there is no follower of that name."""
    if not run.ledger.followers.end(name):
        known = ", ".join(each.name for each in run.ledger.followers.all()) or "none"
        raise ConfigError(f"this run has no follower named {name!r}", f"followers: {known}")


def _target(kind: str, folder: Path, server: str | None) -> Target:
    from s3t_ray.serve.follow.adapter_folder import AdapterFolder
    from s3t_ray.serve.follow.vllm_server import VLLM_TOKEN, VllmServer

    if kind == "vllm" and server is not None:
        return VllmServer(server, os.environ.get(VLLM_TOKEN))
    if kind == "folder" and server is None:
        return AdapterFolder(folder)
    raise ConfigError(
        f"--follow {kind} does not work with{'out' if server is None else ''} --server",
        "give --follow vllm --server http://host:8000, or --follow folder",
    )


def _keep_looking(follower: Follower, stop: threading.Event) -> None:
    from s3t_ray.cli.show.output import note

    told: object = None
    while not stop.wait(0.0 if told is None else LOOK_SECONDS):
        try:
            found: object = f"in service: {', '.join(follower.look()) or 'no adapter'}"
        except S3TError as error:
            found = f"{error.problem} ({error.fix}); retrying"
        if found != told:
            note(str(found))
            told = found
