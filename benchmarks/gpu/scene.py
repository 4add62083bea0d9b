"""The inputs of an experiment: the device, a working folder, and files brought to the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpu.card import Device


@dataclass(frozen=True)
class Scene:
    """One call of one experiment."""

    device: Device
    work: Path  # empty at first, removed afterwards
    dry: bool  # toy sizes on a CPU: shows that everything runs, but its figures mean nothing
    base: Path | None = None  # SmolLM2-135M in Hugging Face format, if available
    records: Path | None = None  # TOFU's question-and-answer pairs as JSON lines, if available
