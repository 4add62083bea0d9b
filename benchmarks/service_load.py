"""Overloads a real service, and measures the latency and the answers of its callers and of deletions.

    python benchmarks/service_load.py [--deletions 200] [--streams 200] [--slow 1000] [--seconds 20] [--pace 1.0]

Trains a tiny run and serves it with `s3t serve` (Ray Serve, HTTP, a scheduler that heals) on this machine. Then:
1. crowds: `streams` concurrent streams, and `slow` requests whose bodies arrive at one byte per second, each crowd in
   a process of its own. Meanwhile it measures how long deletions and health checks take.
2. steady load: `deletions` deletions, one every `pace` seconds, during complete answers and streams. The model's
   process, the proxy and the scheduler are killed meanwhile. Each complete answer is checked against the receipts: its
   fingerprint must be the hash of the stages that it names, and none of them may be in a receipt from before the
   request. A caller that is refused (429, 503) or cut off retries up to 100 times, as a client library would, for as
   long as it takes to reload a model.
3. callbacks: every state of every deletion, signed, at a receiver that refuses every tenth message once.

Writes benchmarks/results/service_load.json and prints it. The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchlib.crowd import Crowd
from benchlib.http_calls import CutOff, Reply, ask
from benchlib.live_service import PARTS, UP_SECONDS, LiveService
from benchlib.measure import Latency, latency
from benchlib.office_receiver import OfficeReceiver
from benchlib.tiny_run import tiny_run
from rich.console import Console

from s3t_ray.config.load import dump_config
from s3t_ray.serve.fingerprint import fingerprint
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
MODEL = "service-load"
SHARDS, SLICES, RECORDS_PER_SLICE = 3, 3, 60
WHOLE_ASKERS, STREAM_ASKERS = 3, 2
TRIES, PAUSE_SECONDS = 100, 2.0
SETTLE_SECONDS = 900.0
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Crowded:
    """The latencies of deletions and health checks while so many others were there."""

    kind: str
    others: int
    refused_others: int  # requests of theirs that got 429 or 503
    cut_off_others: int  # connections of theirs that the service ended
    receipts: Latency
    health: Latency
    failed: int  # deletions or looks at health that were refused or cut off


@dataclass
class Steady:
    deletions: int = 0
    killed: list[str] = field(default_factory=list)
    answered: int = 0  # whole requests
    at_once: int = 0  # of them, at the first try
    tries: dict[str, int] = field(default_factory=dict)  # why others were tried again
    failed: int = 0  # whole requests that were given up
    stale: int = 0
    wrong_fingerprint: int = 0
    streams: dict[str, int] = field(default_factory=dict)  # how they ended
    receipts: Latency | None = None
    restored: int = 0
    callbacks_whole: int = 0
    callbacks_refused_once: int = 0
    callbacks_unsigned: int = 0


@dataclass(frozen=True)
class ServiceLoad:
    crowds: tuple[Crowded, ...]
    steady: Steady


class Callers:
    """Those who ask; `struck` are the stages of the receipts so far."""

    def __init__(self, service: LiveService) -> None:
        self._service = service
        self._struck: set[str] = set()
        self._next_record = 0
        self.over = asyncio.Event()

    async def chat(self, tokens: int, stream: bool = False) -> Reply:
        asked = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Say number {self._next_record}."}],
            "max_tokens": tokens,
            "stream": stream,
        }
        return await ask(self._service.port, "POST", "/v1/chat/completions", self._service.token, asked)

    async def health(self) -> Reply:
        return await ask(self._service.port, "GET", "/healthz", self._service.token)

    async def delete(self) -> Reply:
        """One record more; tried again until there is a receipt."""
        body = {"ids": [f"r{self._next_record}"], "reference": f"DSR-{self._next_record}"}
        self._next_record += 1
        reply: Reply | None = None
        for _ in range(TRIES):
            try:
                reply = await ask(self._service.port, "POST", "/v1/deletions", self._service.delete_token, body)
            except CutOff:
                reply = None
            if reply is not None and reply.status == 202:
                self._struck |= set(reply.json()["stages_pruned"])
                return reply
            await asyncio.sleep(PAUSE_SECONDS)
        raise RuntimeError(f"no receipt after {TRIES} tries: {reply}")

    async def restored(self) -> int:
        listed = await ask(
            self._service.port, "GET", "/v1/deletions?state=restored&limit=1000", self._service.delete_token
        )
        return len(listed.json()["deletions"])

    async def ask_whole(self, made: Steady) -> None:
        """Whole answers one after another, each judged."""
        while not self.over.is_set():
            for attempt in range(TRIES):
                struck = frozenset(self._struck)  # before it is asked for
                try:
                    reply = await self.chat(8)
                except CutOff:
                    _count(made.tries, "cut off")
                else:
                    if reply.status == 200:
                        self._judge(reply, struck, made)
                        made.at_once += attempt == 0
                        break
                    _count(made.tries, str(reply.status))
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                made.failed += 1

    async def ask_streams(self, made: Steady) -> None:
        while not self.over.is_set():
            try:
                reply = await self.chat(60, stream=True)
            except CutOff:
                _count(made.streams, "cut off")
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            _count(made.streams, _ending(reply))
            if reply.status != 200:
                await asyncio.sleep(PAUSE_SECONDS)

    def _judge(self, reply: Reply, struck: frozenset[str], made: Steady) -> None:
        told: dict[str, Any] = reply.json()
        stages = told["s3t"]["stages"]
        made.answered += 1
        made.stale += bool(struck & set(stages))
        made.wrong_fingerprint += told["system_fingerprint"] != fingerprint(stages)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _ending(reply: Reply) -> str:
    if reply.status != 200:
        return f"refused with {reply.status}"
    last = [line for line in reply.body.decode().split("\n\n") if line][-2:]
    if last[-1] != "data: [DONE]":
        return "broken off"
    error = json.loads(last[0].removeprefix("data: ")).get("error")
    return "complete" if error is None else f"ended with {error['code']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deletions", type=int, default=200)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two deletions")
    told = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as work, OfficeReceiver() as office:
        folder = Path(work)
        config = tiny_run(folder, MODEL, shards=SHARDS, slices=SLICES, budget=1, records_per_slice=RECORDS_PER_SLICE)
        (folder / "config.yaml").write_text(dump_config(config))
        subprocess.run([sys.executable, "-m", "s3t_ray.cli.main", "train", str(folder / "config.yaml")], check=True)
        settings = office.write_settings(folder / "callbacks.yaml")
        with LiveService(config.storage.uri, folder / "log", {"S3T_CALLBACKS_FILE": str(settings)}) as service:
            made = asyncio.run(_measured(service, office, told))
    Console().print_json(json.dumps(asdict(made)))
    save(RESULTS / "service_load.json", made)
    steady = made.steady
    whole = steady.restored == steady.callbacks_whole == steady.deletions
    return int(bool(steady.failed or steady.stale or steady.wrong_fingerprint or not whole))


async def _measured(service: LiveService, office: OfficeReceiver, told: argparse.Namespace) -> ServiceLoad:
    callers = Callers(service)
    await _up(service, callers)
    crowds = [
        await _crowded(callers, service, "nobody", 0, told.seconds),
        await _crowded(callers, service, "streams", told.streams, told.seconds),
        await _crowded(callers, service, "half-sent", told.slow, told.seconds),
    ]
    steady = await _steady(callers, service, told.deletions, told.pace)
    before = sum(crowd.receipts.calls for crowd in crowds)
    steady.deletions += before  # those of the crowds are told of too
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until and min(steady.restored, steady.callbacks_whole) < steady.deletions:
        service.check()
        await asyncio.sleep(2.0)
        steady.restored, steady.callbacks_whole = await callers.restored(), office.whole()
    steady.callbacks_refused_once, steady.callbacks_unsigned = office.refused, office.unsigned
    return ServiceLoad(tuple(crowds), steady)


async def _up(service: LiveService, callers: Callers) -> None:
    until = time.monotonic() + UP_SECONDS
    while time.monotonic() < until:
        service.check()
        try:
            if (await callers.health()).status == 200 and (await callers.chat(2)).status == 200:
                return
        except CutOff:
            pass
        await asyncio.sleep(1.0)
    raise RuntimeError("the service is not up")


async def _crowded(callers: Callers, service: LiveService, kind: str, others: int, seconds: float) -> Crowded:
    """Latencies while a crowd, in its own process, keeps the service busy."""
    if others == 0:
        return await _latencies(callers, kind, others, seconds)
    with Crowd(kind, others, service.port, service.token, MODEL) as crowd:
        await asyncio.sleep(seconds / 2)  # until all are there
        made = await _latencies(callers, kind, others, seconds)
    return replace(made, refused_others=crowd.ended.refused, cut_off_others=crowd.ended.cut_off)


async def _latencies(callers: Callers, kind: str, others: int, seconds: float) -> Crowded:
    receipts, health, failed = [], [], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            looks = [await callers.health() for _ in range(4)]
            began = time.perf_counter()
            await callers.delete()
            receipts.append(time.perf_counter() - began)
            health += [look.seconds for look in looks]
            failed += sum(look.status != 200 for look in looks)
        except CutOff:
            failed += 1
        await asyncio.sleep(0.25)
    return Crowded(kind, others, 0, 0, latency(receipts), latency(health), failed)


async def _steady(callers: Callers, service: LiveService, deletions: int, pace: float) -> Steady:
    made = Steady()
    askers = [asyncio.create_task(callers.ask_whole(made)) for _ in range(WHOLE_ASKERS)]
    askers += [asyncio.create_task(callers.ask_streams(made)) for _ in range(STREAM_ASKERS)]
    kills = {deletions * (at + 1) // (len(PARTS) + 1): part for at, part in enumerate(PARTS)}
    receipts = []
    for number in range(deletions):
        if number in kills:
            await asyncio.to_thread(service.kill, kills[number])
            made.killed.append(kills[number])
        began = time.perf_counter()
        await callers.delete()
        receipts.append(time.perf_counter() - began)
        made.deletions += 1
        await asyncio.sleep(pace)
    callers.over.set()
    await asyncio.gather(*askers)
    made.receipts = latency(receipts)
    return made


if __name__ == "__main__":
    sys.exit(main())
