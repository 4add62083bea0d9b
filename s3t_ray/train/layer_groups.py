"""Layer groups: the layers that each stage trains, counted from the top of the model down.

Pure. In: sizes. Out: ranges of layer indices. Layers below the last group never get an adapter. Layer names match
complete path components only: `layers.3` never matches `layers.31`.
"""

from __future__ import annotations

import re

from s3t_ray.config.schema import Lora
from s3t_ray.errors import ConfigError


def layer_group(layers: int, layers_per_group: int, depth: int) -> range:
    """The layers that the stage at `depth` (1 = top) trains, in a model with `layers` layers.

    Raises ConfigError if the group does not fit (the published S3T code uses negative layer indices here).
    """
    if depth < 1:
        raise ConfigError(f"the depth of a stage is {depth}", "count depths from 1, the top layer group")
    lowest = layers - depth * layers_per_group
    if lowest < 0:
        raise ConfigError(
            f"layer group {depth} of {layers_per_group} layers needs {depth * layers_per_group} layers, "
            f"but the model has {layers}",
            f"lower lora.layers_per_group to {max(1, layers // depth)} or slices to {layers // layers_per_group}",
        )
    return range(lowest, lowest + layers_per_group)


def trained_layers(layers: int, lora: Lora, slices: int, depth: int) -> range:
    """The layers that the stage at `depth` trains: its group, or with `isolation: none` all groups."""
    if lora.isolation == "none":
        return range(layer_group(layers, lora.layers_per_group, slices).start, layers)
    return layer_group(layers, lora.layers_per_group, depth)


def depth_of_layer(layers: int, layers_per_group: int, layer: int) -> int:
    """The depth of the stage that trains `layer`: the inverse of `layer_group`."""
    return (layers - 1 - layer) // layers_per_group + 1


def layer_index(name: str, layers_path: str) -> int | None:
    """The index of the layer that contains the module or parameter `name`, or None.

    `layers_path` is the module path of the layer list, such as `model.layers`. `name` must start with it, followed by
    a complete path component.
    """
    match = re.match(rf"{re.escape(layers_path)}\.(\d+)(?:\.|$)", name)
    return int(match.group(1)) if match else None
