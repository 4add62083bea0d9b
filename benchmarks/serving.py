"""Generation under load: streams at once against plain batched `generate`, in one run on one machine.

    python benchmarks/serving.py --base FOLDER [--threads 2] [--tokens 24]

In: a base model's folder (the demo's: `make demo` leaves it in its workspace). Adapters are random, of the demo's
shape: what they say does not matter for speed. Every request has a prompt of its own in one template, asks for the same
number of tokens, and goes on whatever the model says. Out: benchmarks/results/serving.json, and a table. Taken at the
engine, behind HTTP and Ray: what those add is not in it. Rates are per CPU second of the process, so that what else
the machine does counts little.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import statistics
import tempfile
import time
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
SUBJECTS = ("rivers", "bread", "glass", "maps", "bees", "clocks", "salt", "kites", "ink", "snow", "rope", "tin", "owls")
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Load:
    """One number of requests at once."""

    members: int
    streams: int
    whole: bool
    seconds: float
    cpu_seconds: float
    tokens: int
    first_token_seconds: float  # median over the requests
    first_token_cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.tokens / self.cpu_seconds


@dataclass(frozen=True)
class Plain:
    """transformers' generate on the base alone, prompts padded to one batch."""

    batch: int
    seconds: float
    cpu_seconds: float
    tokens: int

    @property
    def per_second(self) -> float:
        return self.tokens / self.cpu_seconds


@dataclass(frozen=True)
class Serving:
    threads: int
    new_tokens: int
    plain: tuple[Plain, ...]
    loads: tuple[Load, ...]

    def rate(self, members: int, streams: int, whole: bool = False) -> float:
        """Tokens per CPU second in all."""
        return next(
            load.per_second
            for load in self.loads
            if (load.members, load.streams, load.whole) == (members, streams, whole)
        )

    def first(self, streams: int) -> float:
        return next(
            load.first_token_cpu_seconds
            for load in self.loads
            if (load.members, load.streams, load.whole) == (2, streams, False)
        )

    @property
    def gain_16(self) -> float:
        """16 streams over one, two shards."""
        return self.rate(2, 16) / self.rate(2, 1)

    @property
    def plain_gain_16(self) -> float:
        return self.plain[-1].per_second / self.plain[0].per_second

    @property
    def share_of_plain_gain(self) -> float:
        return self.gain_16 / self.plain_gain_16

    @property
    def first_token_16_over_1(self) -> float:
        return self.first(16) / self.first(1)

    @property
    def streams_over_whole(self) -> float:
        return self.rate(2, 16) / self.rate(2, 16, whole=True)

    @property
    def eight_shards_cost(self) -> float:
        """Time of eight shards over that of one, 8 streams."""
        return self.rate(1, 8) / self.rate(8, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, default=24)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    loads: list[Load] = []
    for members in (2, 1, 8):
        with tempfile.TemporaryDirectory() as work:
            replica = _replica(told.base, Path(work), members, told.threads)
            _load(replica, members, 2, told.tokens, whole=False)  # warm: the template's beginning is known from now on
            counts = STREAMS if members == 2 else (8,)
            loads.extend([_load(replica, members, streams, told.tokens, whole=False) for streams in counts])
            if members == 2:
                loads.append(_load(replica, members, 16, told.tokens, whole=True))
                plain = tuple(_plain(replica, batch, told.tokens) for batch in STREAMS)
    result = Serving(told.threads, told.tokens, plain, tuple(loads))
    _show(result)
    save(RESULTS / "serving.json", result)


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
    """None twice in one run: only the template's beginning is known already."""
    numbers = [next(_NUMBERS) for _ in range(count)]
    return [f"{SUBJECTS[n % len(SUBJECTS)]} {n}: say in a few sentences what they are for." for n in numbers]


def _load(replica: Replica, members: int, streams: int, tokens: int, whole: bool) -> Load:
    outbox, live = Outbox(), frozenset(replica.ready().stages)
    began, cpu = time.perf_counter(), time.process_time()
    for number, prompt in enumerate(_prompts(streams)):
        params = SamplingParams(tokens, temperature=1.0, seed=number, ignore_eos=True)
        replica.submit(secrets.token_hex(4), Wish(prompt, params, whole=whole), outbox)
    first: dict[str, tuple[float, float]] = {}
    said, ended = 0, 0
    while ended < streams:
        for each in outbox.take(lambda: live, 60).released:
            now = time.perf_counter() - began, time.process_time() - cpu
            if isinstance(each.event, Token):
                first.setdefault(each.generation, now)
                said += 1
            ended += isinstance(each.event, Ended)
            assert not (isinstance(each.event, Started) and each.generation in first)
    took = time.perf_counter() - began, time.process_time() - cpu
    firsts = [statistics.median(times) for times in zip(*first.values(), strict=True)]
    return Load(members, streams, whole, *took, said, *firsts)


def _plain(replica: Replica, batch: int, tokens: int) -> Plain:
    """The same model object without its adapters; the same prompts, sampled too."""
    model, tokenizer = replica._ensemble._base.model, replica._tokenizer
    ids = [replica.tokenise(prompt) for prompt in _prompts(batch)]
    longest = max(len(each) for each in ids)
    padded = torch.tensor([[0] * (longest - len(each)) + list(each) for each in ids])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in ids])
    told = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": True, "top_k": 0, "top_p": 1.0}
    began, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        made = model.generate(padded, attention_mask=mask, pad_token_id=tokenizer.eos_token_id or 0, **told)
    return Plain(batch, time.perf_counter() - began, time.process_time() - cpu, int(made[:, longest:].numel()))


def _show(result: Serving) -> None:
    table = Table("streams", "plain generate, tokens/CPU s", "2 shards, tokens/CPU s", "first token, CPU s")
    for plain in result.plain:
        ours = result.rate(2, plain.batch)
        table.add_row(str(plain.batch), f"{plain.per_second:.1f}", f"{ours:.1f}", f"{result.first(plain.batch):.2f}")
    console = Console()
    console.print(table)
    names = ("gain_16", "plain_gain_16", "share_of_plain_gain", "first_token_16_over_1", "streams_over_whole")
    console.print(json.dumps({name: round(getattr(result, name), 2) for name in (*names, "eight_shards_cost")}))


if __name__ == "__main__":
    main()
