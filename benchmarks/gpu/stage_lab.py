"""Trains stages of the engine on a base with random weights, as in production, and times each step.

In: a shape and engine settings, then contents to learn. Out: `StageTimes`. Uses the engine's own trainer; only the base
weights are created in place (`random_weights.py`). One rank, no Ray.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest import mock

from gpu.card import Device, Peak
from gpu.random_weights import letters, made_on, shape_only
from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.data.slices import Row, write_slice
from s3t_ray.plan.cost import stage_cost
from s3t_ray.plan.memory import engine_setting, rank_memory
from s3t_ray.plan.work import Work, describe_work
from s3t_ray.store.store import Store
from s3t_ray.train.job import Progress, SliceInput, StageJob

WARM_STEPS = 2
"""Warm-up steps, which load kernels and allocate memory; their times do not count."""

RECORD_TOKENS = (96, 120, 144, 168, 192, 232, 288, 448)
"""Lengths similar to Alpaca's records: 211 tokens on average, a few much longer."""

NO_SECRET = "00" * 32
"""Key of the seals. It may be public, because benchmarks prove nothing to anyone."""


@dataclass(frozen=True)
class Setup:
    """A base and how the engine trains it."""

    shape: ModelShape
    slices: int
    rank: int = 32
    alpha: float = 64
    layers_per_group: int = 0  # 0: choose it so that the slices' groups cover all layers
    batch_records: int = 32
    max_tokens: int = 4096
    epochs: int = 1
    attention: str = "sdpa"
    norms: str = "eager"
    quantize: str = "none"
    zero_stage: int = 0
    micro_batch_tokens: int = 8192
    hidden_states: str = "store"
    gradient_checkpointing: bool = False

    @property
    def group(self) -> int:
        return self.layers_per_group or self.shape.layers // self.slices

    def config(self, device: Device, folder: Path, prompt: str = "plain") -> Config:
        """The config, as a user would write it."""
        return Config.model_validate(
            {
                "name": "kit",
                "shards": 1,
                "slices": self.slices,
                "budget": 1,
                "model": {"path": str(folder / "base"), "attention": self.attention, "quantize": self.quantize},
                "task": {"max_tokens": self.max_tokens, "prompt": prompt},
                "data": {"path": "given"},
                "lora": {"rank": self.rank, "alpha": self.alpha, "layers_per_group": self.group},
                "optimizer": {"lr": 2e-5, "epochs": self.epochs, "batch_records": self.batch_records},
                "engine": {
                    "precision": device.precision,
                    "zero_stage": self.zero_stage,
                    "norms": self.norms,
                    "micro_batch_tokens": self.micro_batch_tokens,
                    "hidden_states": self.hidden_states,
                    "gradient_checkpointing": self.gradient_checkpointing,
                },
                "workers": {"gpus_per_rank": int(device.on_gpu)},
                "storage": {"uri": str(folder / "run")},
            }
        )


@dataclass(frozen=True)
class StageTimes:
    """Times of one stage. Rates and step times are of the steps after warm-up."""

    depth: int
    records: int
    tokens: int
    labelled: int
    steps: int
    step_seconds: float  # median
    tokens_per_second: float  # median over the steps
    stage_seconds: float  # total: reading, hidden states, publishing, warm-up steps
    flops_per_token: float  # unavoidable FLOPs, as the plan counts them
    peak: Peak
    planned_bytes: int
    first_loss: float
    last_loss: float
    adapter_sha256: str

    @property
    def flops_per_second(self) -> float:
        return self.flops_per_token * self.tokens_per_second


class StageLab:
    """A loaded trainer, and stages for it."""

    def __init__(self, setup: Setup, device: Device, folder: Path, base: Path | None = None) -> None:
        """`base`: a real base to load instead; its records are instructions."""
        from s3t_ray.train.trainer import Trainer

        self.setup, self.device, self._folder = setup, device, folder
        self.config = setup.config(device, folder, "alpaca" if base else "plain")
        self.store = Store.open(self.config.storage.uri)
        began = perf_counter()
        with nullcontext() if base else made_on(device.kind):
            place = base or shape_only(folder / "base", setup.shape)
            self.trainer = Trainer(self.config, place, self.store, folder / "scratch")
        device.synchronize()
        self.load_seconds = perf_counter() - began
        self._slices: dict[str, SliceInput] = {}

    def put(self, contents: Sequence[str], index: int) -> SliceInput:
        """Write these records to the store as slice `index`; equal records give an equal slice."""
        name = hashlib.sha256("\n".join([str(index), *contents]).encode()).hexdigest()
        if name not in self._slices:
            rows = [
                Row(f"{index}-{number}", content, hashlib.sha256(content.encode()).digest())
                for number, content in enumerate(contents)
            ]
            file = write_slice(self._folder / f"{name}.parquet", rows)
            self.store.upload(file.path, f"slices/{name}.parquet")
            self._slices[name] = SliceInput(index, f"slices/{name}.parquet", file.sha256, name, file.rows, NO_SECRET)
        return self._slices[name]

    def jobs(self, name: str, contents: Sequence[str], shard: int = 0) -> list[StageJob]:
        """Stages 1..L of one sequence. Slice 0 holds all records, so every depth learns the same ones."""
        pieces = [self.put(contents if index == 0 else (), index) for index in range(self.setup.slices)]
        names = [f"{name}-{depth}" for depth in range(1, self.setup.slices + 1)]
        return [
            StageJob(names[at], "kit", "b" * 64, shard, tuple(pieces[: at + 1]), tuple(names[:at]), NO_SECRET)
            for at in range(self.setup.slices)
        ]

    def train(self, job: StageJob) -> str:
        """Train a stage without timing it. Returns the digest of its adapter."""
        return self.trainer.train(job, lambda progress: None, lambda: False).adapter_sha256

    def again(self, job: StageJob, turn: str) -> StageJob:
        """The same stage under another name."""
        return replace(job, stage_id=f"{job.stage_id}-{turn}")

    def time(self, job: StageJob) -> StageTimes:
        """Train a stage and time its steps. A step ends when its loss is read, and so when the device is done."""
        rates: list[float] = []
        seconds: list[float] = []
        begun = 0.0

        def poll() -> bool:  # called before every step
            nonlocal begun
            begun = perf_counter()
            return False

        def progress(done: Progress) -> None:
            seconds.append(perf_counter() - begun)
            rates.append(done.tokens_per_second)

        self.device.release()
        self.device.reset_peak()
        result = self.trainer.train(job, progress, poll)
        peak = self.device.peak()
        warm = WARM_STEPS if len(rates) > WARM_STEPS else 0
        work = self.work(result.records, result.tokens)
        assert result.first_loss is not None and result.last_loss is not None
        alone = replace(work, slice_records=result.records / job.depth, shards=1)
        cost = stage_cost(alone, job.depth)
        return StageTimes(
            depth=job.depth,
            records=result.records,
            tokens=result.tokens,
            labelled=round(cost.labelled_tokens),
            steps=result.steps,
            step_seconds=median(seconds[warm:]),
            tokens_per_second=median(rates[warm:]),
            stage_seconds=result.seconds,
            flops_per_token=cost.flops / result.tokens,
            peak=peak,
            planned_bytes=rank_memory(replace(work, slices=job.depth), engine_setting(self.config)).total,
            first_loss=result.first_loss,
            last_loss=result.last_loss,
            adapter_sha256=result.adapter_sha256,
        )

    def work(self, records: int, tokens: int) -> Work:
        """The plan's workload for this many records of plain text, whose tokens are all learned."""
        mean = tokens / records / self.setup.epochs
        return describe_work(self.config, records, mean, 1.0, self.setup.shape)

    def close(self) -> None:
        """Free the device's memory."""
        del self.trainer
        self.device.release()


def like_alpaca(count: int) -> list[str]:
    """Contents of records of mixed lengths."""
    return texts([RECORD_TOKENS[number % len(RECORD_TOKENS)] for number in range(count)])


def texts(lengths: Sequence[int]) -> list[str]:
    """Contents of records of these lengths in tokens."""
    return [json.dumps({"text": letters(length, number)}) for number, length in enumerate(lengths)]


@contextmanager
def without_determinism() -> Iterator[None]:
    """Inside the block, the engine uses the fastest kernels, to measure the cost of equal bits."""
    import torch

    def only_threads(threads: int) -> None:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)

    with mock.patch("s3t_ray.train.trainer.make_deterministic", only_threads):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(True)


def merged(times: StageTimes, **others: Any) -> dict[str, Any]:
    """A stage's figures as JSON, with additional ones."""
    return {**asdict(times), "flops_per_second": times.flops_per_second, **others}
