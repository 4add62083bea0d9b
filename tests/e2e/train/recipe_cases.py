"""Small trainings with frozen results. Together they cover everything that affects bits on a CPU.

In: the name of a case. Out: what it trained, as a digest of the bytes and as a sketch in numbers. The digest repeats
only on the same hardware and library versions; the sketch repeats, within a tolerance, everywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from s3t_ray.audit.verdict import conditions
from s3t_ray.store.published_stage import read_manifest
from tests.e2e.train.lab import Lab, make_lab, train_chain
from tests.tiny import tiny_bert, tiny_llama

FROZEN = Path(__file__).parents[2] / "data" / "recipe.json"
PROJECTIONS = 2
TOLERANCE = 5e-3
"""Most that two sketches may differ by. Rounding, measured with the oldest and the newest instruction sets of one CPU
against each other: at most 4e-4. A learning rate that is 1% higher: 0.15 and more."""
LOSS_TOLERANCE = 1e-2
"""For cases that round to few bits, where a last bit makes a step of 8-bit numbers: only their losses are compared."""
COARSE = ("8bit", "bfloat16")
WITH_DROPOUT = ("dropout",)

GENERATION: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one_record_a_pack": {"engine": {"micro_batch_tokens": 64}},
    "recomputed_states": {"engine": {"hidden_states": "recompute"}},
    "gradient_checkpointing": {"engine": {"hidden_states": "recompute", "gradient_checkpointing": True}},
    "eager_attention": {"model": {"attention": "eager"}},
    "dropout": {"lora": {"dropout": 0.2}},
    "plain_lora": {"lora": {"use_rslora": False, "alpha": 5.0, "targets": ("q_proj", "down_proj")}},
    "optimizer": {
        "optimizer": {
            "epochs": 3,
            "warmup": 0.3,
            "schedule": "cosine",
            "weight_decay": 0.1,
            "grad_clip": 0.05,
            "betas": (0.8, 0.95),
        }
    },
    "linear_without_clipping": {"seed": 7, "optimizer": {"epochs": 2, "schedule": "linear", "grad_clip": 0.0}},
    "whole_prompt": {"task": {"train_on_prompt": "always", "prompt": "plain"}},
    "chat_template": {"task": {"prompt": "chat_template", "max_tokens": 40}},
    "zero_2": {"engine": {"zero_stage": 2}},
    "zero_3": {"engine": {"zero_stage": 3}},
    "8bit": {"model": {"quantize": "8bit"}},
    "4bit": {"model": {"quantize": "4bit"}},
}
CLASSIFICATION = ("bert", "roberta")
BFLOAT16 = "bfloat16"
CASES = (*GENERATION, *CLASSIFICATION, BFLOAT16)


@dataclass(frozen=True)
class Outcome:
    """The result of a case: two stages of one sequence."""

    digest: str  # SHA-256 over the published tensors of both stages
    sketch: dict[str, list[float]]  # of each tensor: its norm, then projections of it on fixed directions
    losses: list[float]


@dataclass(frozen=True)
class Frozen:
    """The outcomes of one recipe format, and the machines that their digests are known on."""

    recipe_format: int
    dropout_mask: str  # torch's generator draws other masks on other makes of CPU
    outcomes: dict[str, Outcome]
    machines: list[tuple[dict[str, str], dict[str, str]]]  # conditions, and the digest of each case there

    def dump(self) -> str:
        text = json.dumps(asdict(self), indent=1, sort_keys=True)
        return re.sub(r"\n\s+(?=[-\d\]])", " ", text) + "\n"  # numbers beside each other

    @classmethod
    def load(cls) -> Frozen:
        plain = json.loads(FROZEN.read_text())
        outcomes = {name: Outcome(**outcome) for name, outcome in plain.pop("outcomes").items()}
        machines = [(dict(where), dict(digests)) for where, digests in plain.pop("machines")]
        return cls(**plain, outcomes=outcomes, machines=machines)

    def agrees(self, name: str, found: Outcome) -> bool:
        """Whether a case gave the frozen result, up to rounding."""
        frozen = self.outcomes[name]
        if name in COARSE:
            close = zip(frozen.losses, found.losses, strict=True)
            return all(abs(one - other) <= LOSS_TOLERANCE * one for one, other in close)
        return farthest(frozen, found) <= TOLERANCE

    def digests_under(self, here: Mapping[str, str]) -> dict[str, str] | None:
        """The known digests for these conditions (of a case, or of all); None if they were not frozen there."""
        return next((digests for where, digests in self.machines if here.items() <= where.items()), None)


def run_case(name: str, root: Path, changes: Mapping[str, Any] | None = None) -> tuple[Outcome, dict[str, str]]:
    """Train a case in the empty folder `root`; its outcome, and the conditions that its manifests name.

    `changes`: fields of the optimizer to train with instead.
    """
    lab = _lab(name, root, changes or {})
    stages = train_chain(lab, lab.trainer(), "stage", (0, 1))
    hasher = hashlib.sha256()
    sketch: dict[str, list[float]] = {}
    losses: list[float] = []
    for stage in stages:
        manifest = read_manifest(lab.store, stage)
        losses += manifest.losses
        for file in sorted(name for name in manifest.files if name.endswith(".safetensors")):
            data = lab.store.read_bytes(f"stages/{stage}/{file}")
            hasher.update(hashlib.sha256(data).digest())
            sketch |= {f"{stage} {key}": _sketch(value) for key, value in safetensors.torch.load(data).items()}
    return Outcome(hasher.hexdigest(), sketch, losses), dict(conditions(manifest))


def farthest(frozen: Outcome, found: Outcome) -> float:
    """The largest difference of two sketches, as a share of the norm of its tensor."""
    if frozen.sketch.keys() != found.sketch.keys():
        return float("inf")
    return max(
        abs(one - other) / max(before[0], 1e-12)
        for name, before in frozen.sketch.items()
        for one, other in zip(before, found.sketch[name], strict=True)
    )


def dropout_mask() -> str:
    """The dropout mask of torch's generator on this machine, in hex."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kept = torch.nn.functional.dropout(torch.ones(256), 0.5) > 0
    return f"{int(''.join('1' if bit else '0' for bit in kept.tolist()), 2):064x}"


def _lab(name: str, root: Path, changes: Mapping[str, Any]) -> Lab:
    if name in CLASSIFICATION:
        base = tiny_bert(root / "base", layers=4, family=name)
        task = {"kind": "classification", "labels": ("good", "bad", "odd"), "max_tokens": 32}
        lora = {"dropout": 0.0}
        return make_lab(root, base=base, task=task, slices=2, lora=lora, engine=_RECOMPUTE, optimizer=dict(changes))
    sections = dict(GENERATION.get(name, {}))
    base = tiny_llama(root / "base", layers=4, hidden=64 if "bit" in name else 32)
    sections["model"] = {"path": str(base), **sections.get("model", {})}
    sections["optimizer"] = {**sections.get("optimizer", {}), **changes}
    sections["engine"] = {"micro_batch_tokens": 2048, **sections.get("engine", {})}  # all records of a step in one pack
    lab = make_lab(root, base=base, slices=2, **sections)
    if name == BFLOAT16:  # the config refuses it on a CPU for its speed
        engine = lab.config.engine.model_copy(update={"precision": "bfloat16"})
        return Lab(root, lab.config.model_copy(update={"engine": engine}), base, lab.store, lab.slices)
    return lab


_RECOMPUTE = {"hidden_states": "recompute", "micro_batch_tokens": 64}


def _sketch(tensor: Tensor) -> list[float]:
    """Norm, and products with fixed directions, in float64."""
    flat = tensor.double().flatten()
    places = torch.arange(1, flat.numel() + 1, dtype=torch.float64)
    directions = [torch.sin(places * (1.0 + 0.37 * number)) for number in range(PROJECTIONS)]
    return [float(f"{value:.9g}") for value in (flat.norm(), *(flat @ direction for direction in directions))]
