"""The config of the tests that check or load a base."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.config.schema import Config


def config_for(folder: Path, **changes: object) -> Config:
    document: dict[str, object] = {
        "name": "lab",
        "shards": 1,
        "slices": 1,
        "budget": 1,
        "model": {"path": str(folder)},
        "data": {"path": "unused"},
        "lora": {"layers_per_group": 1},
        "storage": {"uri": "unused"},
    }
    return Config.model_validate({**document, **changes})
