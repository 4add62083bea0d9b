"""Lists the experiments by value, and decides which fit the remaining time. Pure, without torch.

In: the completed experiments, the seconds left. Out: the experiments to run now, each with its limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Experiment:
    """One experiment. `name` is its file in `experiments/`."""

    name: str
    question: str
    seconds: float  # time limit on a GPU
    after: str = ""  # the experiment that it compares its points with


EXPERIMENTS = (
    Experiment("card_rates", "rates of the GPU, and whether a stage trained twice is bitwise equal", 60),
    Experiment("engine_13b", "Llama-2-13B's shape: tokens/s per depth, share of the rate, memory, determinism", 190),
    Experiment("engine_8b", "Llama-3-8B's shape at full depth, against the published rate of one H100", 80),
    Experiment("trainer_8b", "Hugging Face's Trainer with PEFT on the same workload", 90, after="engine_8b"),
    Experiment("memory", "the memory plan against measured peaks: ZeRO 0, 2, 3, checkpointing", 110),
    Experiment("attention", "records packed to 8k and 16k: comparison of attention kernels", 45),
    Experiment("serving", "tokens/s of 1, 8, 32 requests: ensembles of 2 and 5 shards, the base alone", 100),
    Experiment("stored_states", "hidden states from disk through pinned buffers: whether a step waits", 60),
    Experiment("tofu", "all of TOFU on SmolLM2-135M", 90),
)
"""The most valuable first, because the last ones may not fit the time."""

CLOSING_SECONDS = 5.0
"""Seconds reserved to end a process at its limit and to write its results."""

LEAST_SECONDS = 20.0
"""Minimum seconds to start an experiment: imports alone take most of it."""


def limit_of(experiment: Experiment, seconds_left: float, patience: float = 1.0) -> float | None:
    """Time limit in seconds if started now; None if too little time is left. `patience` multiplies its own limit."""
    usable = seconds_left - CLOSING_SECONDS
    return min(patience * experiment.seconds, usable) if usable >= LEAST_SECONDS else None


def to_run(measured: Collection[str], only: Collection[str] = ()) -> Iterator[Experiment]:
    """The experiments still to run, in order. `only`: restricts them to these names, if not empty."""
    for experiment in EXPERIMENTS:
        if experiment.name not in measured and (not only or experiment.name in only):
            yield experiment
