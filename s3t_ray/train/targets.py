"""Selects the linear modules of a base model that get an adapter.

In: a model (on any device, including the meta device) and the config. Out: full module paths. Layer names match
complete path components, never parts of a name.
"""

from __future__ import annotations

from torch import nn

from s3t_ray.config.families import Family
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.train.layer_groups import layer_index


def lora_targets(model: nn.Module, family: Family, lowest: int, config: Config) -> list[str]:
    """The full paths of the linear modules in layers >= `lowest` that `lora.targets` selects.

    Raises ConfigError if a target matches no module in any layer.
    """
    wanted = config.lora.targets
    names: list[str] = []
    available: set[str] = set()
    hit: set[str] = set()
    for name, module in model.named_modules():
        layer = layer_index(name, family.layers_path)
        if layer is None or not isinstance(module, nn.Linear):
            continue
        inside = name.removeprefix(f"{family.layers_path}.{layer}.")
        available.add(inside)
        matches = {target for target in wanted if wanted != "all-linear" and f".{inside}".endswith(f".{target}")}
        hit |= matches
        if layer >= lowest and (wanted == "all-linear" or matches):
            names.append(name)
    missing = sorted(set(wanted) - hit) if wanted != "all-linear" else []
    if missing:
        raise ConfigError(
            f"lora.targets names {missing}, which no module in the layers of {config.model.path} matches",
            f"choose from {sorted(available)}, or use all-linear",
        )
    return names
