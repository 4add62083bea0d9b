"""Makes thousands of HTTP calls from one thread: plain sockets under asyncio, one connection per call.

In: an address, a token, JSON. Out: `Reply`, with its duration in seconds. A stream is read to its end and returned
complete.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

LONGEST_SECONDS = 300.0
_PAUSE_OF_SLOW_SECONDS = 1.0


class CutOff(Exception):
    """The connection failed, or ended before the answer was complete."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(port: int, method: str, path: str, token: str, body: object = None) -> Reply:
    """Make one call. CutOff: no complete answer arrived."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_request(method, path, token, None if body is None else json.dumps(body).encode()))
                told = await reader.read()  # read to the end, where the connection closes
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise CutOff(repr(error)) from error
    head, found, rest = told.partition(b"\r\n\r\n")
    if not found:
        raise CutOff("no answer")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        rest = _whole(rest)
    elif len(rest) != int(headers.get("content-length", len(rest))):
        raise CutOff("half an answer")
    return Reply(int(first.split()[1]), headers, rest, time.perf_counter() - began)


async def half_sent(port: int, path: str, token: str, until: asyncio.Event) -> bool:
    """Send a request body at one byte per second until `until`. Returns whether the service kept the connection."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(_request("POST", path, token, b" " * 100_000)[:-99_999])
        while not until.is_set():
            writer.write(b" ")
            await writer.drain()
            try:
                await asyncio.wait_for(until.wait(), _PAUSE_OF_SLOW_SECONDS)
            except TimeoutError:
                continue
        return not reader.at_eof()
    except OSError:
        return False
    finally:
        writer.close()


def _request(method: str, path: str, token: str, body: bytes | None) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Connection: close",
        *([] if body is None else ["Content-Type: application/json", f"Content-Length: {len(body)}"]),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def _whole(chunked: bytes) -> bytes:
    made = b""
    while chunked:
        size, found, rest = chunked.partition(b"\r\n")
        count = int(size or b"0", 16) if found else 0
        if count == 0:
            if size != b"0":
                raise CutOff("half a stream")
            return made
        made, chunked = made + rest[:count], rest[count + 2 :]
    raise CutOff("half a stream")
