"""Forks one process per command, after importing the libraries that most commands need.

Run as `python -m tests.command_server`; `tests/command.py` starts it. In: a JSON object per line with the arguments,
working directory, environment, and files for the output. Out: the exit code of each command, one per line. A forked
command runs as `python -m s3t_ray.cli.main` would, except that torch and transformers are already imported, which
takes 6 CPU seconds. It imports Ray and our own modules itself.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from typing import Any

TIMEOUT = 300
"""Seconds after which a command is killed."""
LIBRARIES = ("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto")
"""Not PEFT, which would import bitsandbytes: our own modules import it without."""


def next_command() -> dict[str, Any] | None:
    """Returns in a forked process, with the command that it is to run; in the server, None at the end of the input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return dict(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def run(command: dict[str, Any]) -> None:
    """Become the command. Ends with SystemExit."""
    signal.alarm(TIMEOUT)
    for number, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (command["out"], os.O_WRONLY), (command["err"], os.O_WRONLY))
    ):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["env"])
    sys.argv = ["s3t", *command["arguments"]]
    runpy.run_module("s3t_ray.cli.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # as the command sets it before it imports
    for name in LIBRARIES:
        __import__(name)
    order = next_command()
    if order is not None:
        run(order)
