"""Runs `s3t serve` in a separate process on a local port, and can kill its parts.

In: a trained run. Out: an address and tokens. Ends only the processes that it started.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import TracebackType

UP_SECONDS = 300.0
PARTS = {"the model": "Following", "the proxy": "ProxyActor", "the scheduler": "SchedulerActor"}
"""Parts that can be killed, and a word in the title of their process."""


class LiveService:
    """A context manager: the service is up inside the block."""

    def __init__(self, run: str, log: Path, environment: dict[str, str]) -> None:
        self.port = _free_port()
        self.token, self.delete_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._run = run
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LiveService:
        told = {"S3T_SERVE_TOKEN": self.token, "S3T_DELETE_TOKEN": self.delete_token, **self._environment}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "s3t_ray.cli.main", "serve", self._run, "--port", str(self.port)],
                env={**os.environ, **told},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process = self._process
        assert process is not None
        children = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        until = time.monotonic() + 20
        pause = threading.Event()
        while time.monotonic() < until and any(title_of(child) == title for child, title in children.items()):
            pause.wait(0.5)
        for child, title in children.items():
            if title_of(child) == title:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def check(self) -> None:
        """Raise RuntimeError if the service has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"s3t serve ended with {self._process.returncode}: {self._log.read_text()[-2000:]}")

    def kill(self, part: str) -> int:
        """Send SIGKILL to the process of one of PARTS. Returns its id."""
        found = self._find(PARTS[part])
        os.kill(found, signal.SIGKILL)
        return found

    def _find(self, word: str) -> int:
        assert self._process is not None
        until = time.monotonic() + UP_SECONDS
        pause = threading.Event()
        while time.monotonic() < until:
            for child, title in descendants(self._process.pid).items():
                if word in title.split(" ")[0]:
                    return child
            pause.wait(0.5)
        raise RuntimeError(f"no process of the service has {word} in its title")


def descendants(root: int) -> dict[int, str]:
    """Titles by id of all processes that `root` started, directly or indirectly."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                _, _, rest = (entry / "stat").read_text().rpartition(") ")  # the name before it may contain anything
                children[int(rest.split()[1])].append(int(entry.name))
    found: dict[int, str] = {}
    todo = [root]
    while todo:
        for child in children[todo.pop()]:
            found[child] = title_of(child)
            todo.append(child)
    return found


def title_of(process: int) -> str:
    """The process's command line, which Ray sets to a title. Empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
