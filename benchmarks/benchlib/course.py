"""One run of m shards x L slices x B sequences, which both systems of a comparison train.

In: records and settings. Out: a frozen Course, also as JSON, because each system trains in its own processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Modules that both systems adapt: all linear modules of a Llama layer."""


class Course(BaseModel):
    """Everything that both systems must agree on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Path
    shards: tuple[tuple[tuple[str, ...], ...], ...]  # shard -> slice -> contents of its records
    held_out: tuple[str, ...]
    orders: tuple[tuple[int, ...], ...]  # orders of the slices, the same in each shard
    layers: int
    layers_per_group: int
    rank: int
    alpha: float
    lr: float
    epochs: int
    batch_records: int
    max_tokens: int
    seed: int

    @property
    def slices(self) -> int:
        return len(self.orders[0])

    @property
    def stages(self) -> int:
        """Stages of all sequences; a shared prefix counts once per sequence."""
        return len(self.shards) * len(self.orders) * self.slices

    @property
    def record_visits(self) -> int:
        """Records learned, summed over all stages, sequences and epochs: the basis of records/s."""
        return self.epochs * sum(
            len(shard[index])
            for shard in self.shards
            for order in self.orders
            for depth in range(1, len(order) + 1)
            for index in order[:depth]
        )

    def modules(self, depth: int) -> list[str]:
        """Full paths of the modules that stage `depth` trains."""
        lowest = self.layers - depth * self.layers_per_group
        return [
            f"model.layers.{layer}.{'mlp' if name.split('_')[0] in ('gate', 'up', 'down') else 'self_attn'}.{name}"
            for layer in range(lowest, lowest + self.layers_per_group)
            for name in LINEAR
        ]

    def config(self, storage: Path, engine: dict[str, Any], **sections: dict[str, Any]) -> Config:
        """The run as our configuration; `engine` overrides that section, `sections` adds others."""
        return Config.model_validate(
            {
                "name": "course",
                "seed": self.seed,
                "shards": len(self.shards),
                "slices": self.slices,
                "budget": len(self.orders),
                "order": {"kind": "explicit", "sequences": self.orders},
                "model": {"path": str(self.base)},
                "task": {"max_tokens": self.max_tokens},
                "data": {"path": "given"},
                "lora": {"rank": self.rank, "alpha": self.alpha, "layers_per_group": self.layers_per_group},
                "optimizer": {"lr": self.lr, "epochs": self.epochs, "batch_records": self.batch_records},
                "engine": {"micro_batch_tokens": 2048, **engine},
                "storage": {"uri": str(storage)},
                **sections,
            }
        )


def share_out(contents: Sequence[str], shards: int, slices: int, of_each: int, held_out: int) -> dict[str, Any]:
    """`of_each` records per slice and the held-out records, as fields of a Course. ConfigError: too few records."""
    needed = shards * slices * of_each + held_out
    if len(contents) < needed:
        raise ConfigError(
            f"{needed} records are needed, but there are {len(contents)}", "use fewer records, or a larger --data"
        )
    taken = iter(contents[held_out:])
    return {
        "held_out": tuple(contents[:held_out]),
        "shards": tuple(
            tuple(tuple(next(taken) for _ in range(of_each)) for _ in range(slices)) for _ in range(shards)
        ),
    }
