"""The `s3t` command as a user runs it, in a process of its own (`command_server.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@cache
def server() -> subprocess.Popen[str]:
    """One per session; it ends when this process does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.command_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def s3t(*arguments: str, code: int | tuple[int, ...] = 0, cwd: Path | None = None) -> str:
    """Output of the command. Fails, with all output, if its exit code is not (one of) `code`."""
    running = server()
    assert running.stdin is not None and running.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        command = {
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "env": os.environ | {"PYTHONPATH": str(ROOT)},  # this tree's code, wherever `cwd` is
            "out": out.name,
            "err": err.name,
        }
        running.stdin.write(f"{json.dumps(command)}\n")
        running.stdin.flush()
        line = running.stdout.readline()
        assert line, f"the command server ended (exit {running.poll()}) before `s3t {' '.join(arguments)}` did"
        returned = int(line)
        told, noted = out.read(), err.read()
    assert returned in ((code,) if isinstance(code, int) else code), f"exit {returned}\n{told}\n{noted}"
    return told
