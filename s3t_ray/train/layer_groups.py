"""Layer groups: which layers a stage trains, counted from the top of the model downward.

Pure. In: sizes. Out: ranges of layer indices. Layers below the last group never get an adapter. A name belongs
to a layer only by whole path components: `layers.3` is never found in `layers.31`.
"""

from __future__ import annotations

import re

from s3t_ray.config.schema import Lora
from s3t_ray.errors import ConfigError


def layer_group(layers: int, layers_per_group: int, depth: int) -> range:
    """Layers that the stage at `depth` (1 = top) trains, in a model of `layers` layers.

    ConfigError when the group does not fit: the published code took negative layers here.
    """
    if depth < 1:
        raise ConfigError(f"depth of a stage is {depth}", "depths count from 1, the top layer group")
    lowest = layers - depth * layers_per_group
    if lowest < 0:
        raise ConfigError(
            f"layer group {depth} of {layers_per_group} layers needs {depth * layers_per_group} layers, "
            f"but the model has {layers}",
            f"lower lora.layers_per_group to {max(1, layers // depth)} or slices to {layers // layers_per_group}",
        )
    return range(lowest, lowest + layers_per_group)


def trained_layers(layers: int, lora: Lora, slices: int, depth: int) -> range:
    """Layers that the stage at `depth` trains: its group, or with `isolation: none` all groups."""
    if lora.isolation == "none":
        return range(layer_group(layers, lora.layers_per_group, slices).start, layers)
    return layer_group(layers, lora.layers_per_group, depth)


def depth_of_layer(layers: int, layers_per_group: int, layer: int) -> int:
    """Depth of the stage that trains `layer`: the inverse of `layer_group`."""
    return (layers - 1 - layer) // layers_per_group + 1


def layer_index(name: str, layers_path: str) -> int | None:
    """Index of the layer that module or parameter `name` lies in, or None.

    `layers_path` is the module path of the layer list, such as `model.layers`; `name` must lie under it by whole
    path components, from its start.
    """
    match = re.match(rf"{re.escape(layers_path)}\.(\d+)(?:\.|$)", name)
    return int(match.group(1)) if match else None
