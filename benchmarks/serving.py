"""Measures generation under load: concurrent streams against plain batched `generate`, in one run.

    python benchmarks/serving.py --base FOLDER [--threads 2] [--tokens 24] [--repeats 3]

In: the folder of a base model (`make demo` leaves one in its workspace). Adapters are random, with the demo's shapes;
their values do not affect speed. All requests use one template with different prompts, ask for the same number of
tokens, and ignore end-of-text. Out: benchmarks/results/serving.json and a table. Measures the engine alone, without
HTTP and Ray.

Each repeat measures every point once, and each ratio is computed within a repeat, so the load of other processes has
little effect. Reports the process's CPU time and wall time. With several threads, only wall time shows how long a
caller waits.

The first token is measured in two ways. Burst: all requests at the same instant, to an otherwise idle engine. Steady:
each caller asks again as soon as it has an answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from benchlib.published_stages import publish_random_stages
from rich.console import Console
from rich.table import Table

from s3t_ray.config.load import dump_config
from s3t_ray.config.schema import Config
from s3t_ray.ensemble.answers import Ended, Started, Token, Wish
from s3t_ray.ensemble.batching.outbox import Outbox
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.replica import Replica
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
STREAMS = (1, 4, 8, 16)
SLICES, PER_GROUP, RANK = 3, 4, 8
ROUNDS = 3
"""Requests per caller of a steady load."""
SUBJECTS = ("rivers", "bread", "glass", "maps", "bees", "clocks", "salt", "kites", "ink", "snow", "rope", "tin", "owls")
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Spent:
    """Wall time, and CPU time of this process."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Load:
    """Concurrent requests or, with `rounds` above 1, callers that each ask repeatedly."""

    members: int
    streams: int
    whole: bool
    rounds: int
    tokens: int
    spent: Spent
    first_token: Spent  # median over the requests


@dataclass(frozen=True)
class Plain:
    """transformers' generate on the base alone, prompts padded to one batch."""

    batch: int
    tokens: int
    spent: Spent
    prompt: Spent  # only one new token: the time to read the prompts


@dataclass(frozen=True)
class Repeat:
    """One measurement of every point."""

    plain: tuple[Plain, ...]
    loads: tuple[Load, ...]

    def load(self, members: int, streams: int, whole: bool = False, rounds: int = 1) -> Load:
        wanted = (members, streams, whole, rounds)
        return next(load for load in self.loads if (load.members, load.streams, load.whole, load.rounds) == wanted)

    def ratios(self, time_of: Callable[[Spent], float]) -> dict[str, float]:
        """The ratios with goals, from the seconds that `time_of` selects."""

        def rate(made: Load | Plain) -> float:
            return made.tokens / time_of(made.spent)

        one, sixteen = self.load(2, 1), self.load(2, 16)
        steady_one, steady_sixteen = self.load(2, 1, rounds=ROUNDS), self.load(2, 16, rounds=ROUNDS)
        gain, plain_gain = rate(sixteen) / rate(one), rate(self.plain[-1]) / rate(self.plain[0])
        return {
            "gain_16": gain,
            "plain_gain_16": plain_gain,
            "share_of_plain_gain": gain / plain_gain,
            "steady_gain_16": rate(steady_sixteen) / rate(steady_one),
            "burst_first_token_16_over_1": time_of(sixteen.first_token) / time_of(one.first_token),
            "steady_first_token_16_over_1": time_of(steady_sixteen.first_token) / time_of(steady_one.first_token),
            "plain_prompts_16_over_1": time_of(self.plain[-1].prompt) / time_of(self.plain[0].prompt),
            "streams_over_whole": rate(sixteen) / rate(self.load(2, 16, whole=True)),
            "eight_shards_cost": rate(self.load(1, 8)) / rate(self.load(8, 8)),
        }


@dataclass(frozen=True)
class Serving:
    threads: int
    new_tokens: int
    ratios_of_cpu_time: dict[str, float]  # medians over the repeats
    ratios_of_clock_time: dict[str, float]
    repeats: tuple[Repeat, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    with tempfile.TemporaryDirectory() as work:
        replicas = {
            members: _replica(told.base, Path(work) / str(members), members, told.threads) for members in (1, 2, 8)
        }
        for replica in replicas.values():  # warm up: the start of the template is cached from now on
            _load(replica, 1, 2, 2)
        repeats = tuple(_repeat(replicas, told.tokens) for _ in range(told.repeats))
    result = Serving(
        told.threads,
        told.tokens,
        _medians([repeat.ratios(lambda spent: spent.cpu_seconds) for repeat in repeats]),
        _medians([repeat.ratios(lambda spent: spent.seconds) for repeat in repeats]),
        repeats,
    )
    _show(result)
    save(RESULTS / "serving.json", result)


def _repeat(replicas: dict[int, Replica], tokens: int) -> Repeat:
    plain, loads = [], []
    for streams in STREAMS:  # ours and plain, alternating
        loads.append(_load(replicas[2], 2, streams, tokens))
        plain.append(_plain(replicas[2], streams, tokens))
    loads.append(_load(replicas[2], 2, 16, tokens, whole=True))
    loads += [_load(replicas[members], members, 8, tokens) for members in (1, 8)]
    loads += [_load(replicas[2], 2, streams, tokens, rounds=ROUNDS) for streams in (1, 16)]
    return Repeat(tuple(plain), tuple(loads))


def _medians(ratios: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in ratios) for name in ratios[0]}


def _replica(base: Path, work: Path, members: int, threads: int) -> Replica:
    config = Config.model_validate(
        {
            "name": "serving",
            "shards": members,
            "slices": SLICES,
            "budget": 1,
            "model": {"path": str(base)},
            "data": {"path": "unused.jsonl"},
            "lora": {"rank": RANK, "alpha": 2.0 * RANK, "layers_per_group": PER_GROUP},
            "storage": {"uri": str(work / "run")},
        }
    )
    chains = publish_random_stages(work / "run", base, members, SLICES, PER_GROUP, RANK)
    replica = Replica(dump_config(config), str(base), str(work / "run"), threads)
    replica.set_live(1, chains)
    return replica


def _prompts(count: int) -> list[str]:
    """All different within a run: only the start of the template is cached."""
    numbers = [next(_NUMBERS) for _ in range(count)]
    return [f"{SUBJECTS[n % len(SUBJECTS)]} {n}: say in a few sentences what they are for." for n in numbers]


def _load(replica: Replica, members: int, streams: int, tokens: int, *, whole: bool = False, rounds: int = 1) -> Load:
    outbox, live = Outbox(), frozenset(replica.ready().stages)
    asked: dict[str, tuple[float, float]] = {}
    first: dict[str, Spent] = {}
    wishes = [
        Wish(prompt, SamplingParams(tokens, temperature=1.0, seed=number, ignore_eos=True), whole=whole)
        for number, prompt in enumerate(_prompts(streams * rounds))
    ]

    def ask() -> None:
        name = secrets.token_hex(4)
        asked[name] = time.perf_counter(), time.process_time()
        replica.submit(name, wishes[len(asked) - 1], outbox)

    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(streams):
        ask()
    said, ended = 0, 0
    while ended < len(wishes):
        for each in outbox.take(lambda: live, 60).released:
            if isinstance(each.event, Token):
                then = asked[each.generation]
                first.setdefault(each.generation, Spent(time.perf_counter() - then[0], time.process_time() - then[1]))
                said += 1
            if isinstance(each.event, Ended):
                ended += 1
                if len(asked) < len(wishes):
                    ask()
            assert not (isinstance(each.event, Started) and each.generation in first)
    spent = Spent(time.perf_counter() - began, time.process_time() - cpu)
    firsts = Spent(
        statistics.median(each.seconds for each in first.values()),
        statistics.median(each.cpu_seconds for each in first.values()),
    )
    return Load(members, streams, whole, rounds, said, spent, firsts)


def _plain(replica: Replica, batch: int, tokens: int) -> Plain:
    """The same model object without adapters, on similar prompts, with sampling."""
    prompt, _ = _generate(replica, batch, 1)
    spent, made = _generate(replica, batch, tokens)
    return Plain(batch, made, spent, prompt)


def _generate(replica: Replica, batch: int, tokens: int) -> tuple[Spent, int]:
    model, tokenizer = replica._ensemble._base.model, replica._tokenizer
    ids = [replica.tokenise(prompt) for prompt in _prompts(batch)]
    longest = max(len(each) for each in ids)
    padded = torch.tensor([[0] * (longest - len(each)) + list(each) for each in ids])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in ids])
    told = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": True, "top_k": 0, "top_p": 1.0}
    began, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        made = model.generate(padded, attention_mask=mask, pad_token_id=tokenizer.eos_token_id or 0, **told)
    return Spent(time.perf_counter() - began, time.process_time() - cpu), int(made[:, longest:].numel())


def _show(result: Serving) -> None:
    console = Console()
    table = Table("streams", "plain generate, tokens/CPU s", "2 shards, tokens/CPU s", "first token, CPU s")
    for at, streams in enumerate(STREAMS):
        plain = statistics.median(each.plain[at].tokens / each.plain[at].spent.cpu_seconds for each in result.repeats)
        ours = [repeat.load(2, streams) for repeat in result.repeats]
        rate = statistics.median(load.tokens / load.spent.cpu_seconds for load in ours)
        first = statistics.median(load.first_token.cpu_seconds for load in ours)
        table.add_row(str(streams), f"{plain:.1f}", f"{rate:.1f}", f"{first:.2f}")
    console.print(table)
    for name, ratios in (("CPU", result.ratios_of_cpu_time), ("clock", result.ratios_of_clock_time)):
        console.print(name, json.dumps({key: round(value, 2) for key, value in ratios.items()}))


if __name__ == "__main__":
    main()
