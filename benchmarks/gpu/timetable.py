"""Which experiments there are, in order of value, and what of them fits the time that is left. Pure, without torch.

In: what is measured already, the seconds left. Out: the experiments to run now, each with its limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Experiment:
    """One question to the card. `name` is its file in `experiments/`."""

    name: str
    question: str
    seconds: float  # most that it may take on a card
    after: str = ""  # the experiment whose points it compares its own with


EXPERIMENTS = (
    Experiment("card_rates", "what the card can do, and whether a stage trained twice is equal to the bit", 60),
    Experiment("engine_13b", "Llama-2-13B's shape: tokens/s per depth, share of the rate, memory, determinism", 190),
    Experiment("engine_8b", "Llama-3-8B's shape at full depth, beside the published rate of one H100", 80),
    Experiment("trainer_8b", "Hugging Face's Trainer with PEFT on the same", 90, after="engine_8b"),
    Experiment("memory", "the memory plan against measured peaks: ZeRO 0, 2, 3, checkpointing", 110),
    Experiment("attention", "records packed to 8k and 16k: the ways to attend, side by side", 45),
    Experiment("serving", "tokens/s of 1, 8, 32 requests: ensembles of 2 and 5 shards, the base alone", 100),
    Experiment("stored_states", "hidden states from disk through pinned buffers: does a step wait?", 60),
    Experiment("tofu", "all of TOFU on SmolLM2-135M", 90),
)
"""The most valuable first: whatever the time cuts off is at the end."""

CLOSING_SECONDS = 5.0
"""For ending a process that is over its limit, and for writing what is left to write."""

LEAST_SECONDS = 20.0
"""An experiment does not begin with less: imports alone take most of it."""


def limit_of(experiment: Experiment, seconds_left: float, patience: float = 1.0) -> float | None:
    """Seconds that it may take, begun now; None: too few are left to begin. `patience`: times its own limit."""
    usable = seconds_left - CLOSING_SECONDS
    return min(patience * experiment.seconds, usable) if usable >= LEAST_SECONDS else None


def to_run(measured: Collection[str], only: Collection[str] = ()) -> Iterator[Experiment]:
    """What is still to be measured, in order. `only`: these alone, where any are named."""
    for experiment in EXPERIMENTS:
        if experiment.name not in measured and (not only or experiment.name in only):
            yield experiment
