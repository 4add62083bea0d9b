"""A crowd of callers in a process of its own, so that a measurement beside it does not wait for their event loop.

    python -m benchlib.crowd KIND OTHERS PORT    (the token in CROWD_TOKEN)

KIND is `streams` (long streamed answers, one after another) or `half-sent` (request bodies at one byte per second; a
caller that is cut off comes back). Runs until its stdin closes, then prints the number of refusals (429, 503) and of
connections that the service ended, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType

from benchlib.http_calls import CutOff, ask, half_sent
from benchlib.module_process import library_environment, module_command

KINDS = ("streams", "half-sent")
_PAUSE_SECONDS = 1.0
_STREAM = {"messages": [{"role": "user", "content": "Say a number."}], "max_tokens": 200, "stream": True}


class Crowd:
    """A context manager: the crowd is there inside the block. `ended` is its report afterwards."""

    def __init__(self, kind: str, others: int, port: int, token: str, model: str) -> None:
        self._command = module_command("crowd", kind, others, port)
        self._environment = {**library_environment(), "CROWD_TOKEN": token, "CROWD_MODEL": model}
        self._process: subprocess.Popen[str] | None = None
        self.ended = Ended(0, 0)

    def __enter__(self) -> Crowd:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        told, _ = self._process.communicate("")
        if self._process.returncode == 0:
            self.ended = Ended(**json.loads(told))
        elif error is None:
            raise RuntimeError(f"the crowd ended with {self._process.returncode}")


@dataclass
class Ended:
    """How often the service turned a caller away."""

    refused: int  # with 429 or 503
    cut_off: int  # the connection was ended


async def _crowd(kind: str, others: int, port: int, token: str, model: str) -> Ended:
    over, ended = asyncio.Event(), Ended(0, 0)

    async def stream() -> None:
        while not over.is_set():
            try:
                reply = await ask(port, "POST", "/v1/chat/completions", token, {"model": model, **_STREAM})
            except CutOff:
                ended.cut_off += 1
            else:
                ended.refused += reply.status in (429, 503)
                if reply.status == 200:
                    continue
            await asyncio.sleep(_PAUSE_SECONDS)

    async def slow() -> None:
        while not over.is_set():
            if await half_sent(port, "/v1/chat/completions", token, over):
                continue
            ended.cut_off += not over.is_set()
            await asyncio.sleep(_PAUSE_SECONDS)

    callers = [asyncio.create_task(stream() if kind == "streams" else slow()) for _ in range(others)]
    await asyncio.to_thread(sys.stdin.read)
    over.set()
    if kind == "streams":  # they would be generated to their end
        for caller in callers:
            caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    return ended


def main() -> None:
    kind, others, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind not in KINDS:
        raise SystemExit(f"KIND is one of {', '.join(KINDS)}, not {kind}")
    ended = asyncio.run(_crowd(kind, others, port, os.environ["CROWD_TOKEN"], os.environ["CROWD_MODEL"]))
    print(json.dumps(vars(ended)))


if __name__ == "__main__":
    main()
