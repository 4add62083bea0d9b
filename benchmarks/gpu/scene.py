"""What an experiment is given: the device, a folder to work in, and what was carried along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpu.card import Device


@dataclass(frozen=True)
class Scene:
    """One call of one experiment."""

    device: Device
    work: Path  # empty, and removed afterwards
    dry: bool  # toy sizes on a CPU: it shows that everything runs, and its figures say nothing
    base: Path | None = None  # SmolLM2-135M in Hugging Face format, where it was carried along
    records: Path | None = None  # TOFU's question-and-answer pairs as JSON lines, likewise
