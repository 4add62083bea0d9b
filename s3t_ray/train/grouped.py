"""Activates one stage on the loaded base model.

The parents' adapters are active and frozen, one layer group has new trainable adapters, and the groups below it have
none. With `lora.isolation: none`, all groups are trainable and continue from the parent's values.

In: the Base, a depth, the parents' tensors. Out: the trainable parameters by their published name. Each stage gets
new Parameter objects, so no state of an earlier stage or its optimizer can remain. Never writes to a base weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.train.forward import with_layers
from s3t_ray.train.layer_groups import depth_of_layer, layer_index, trained_layers
from s3t_ray.train.loading.base import ADAPTER, Base
from s3t_ray.train.seeds import StagePlace
from s3t_ray.train.zero3_gather import whole

PEFT_PREFIX = "base_model.model."  # prefix of every tensor name in a PEFT adapter file


def weight_names(module_path: str) -> tuple[str, str]:
    """The names of a LoRA module's two tensors in a PEFT adapter file."""
    return f"{PEFT_PREFIX}{module_path}.lora_A.weight", f"{PEFT_PREFIX}{module_path}.lora_B.weight"


class GroupedModel:
    """The base model, divided into layer groups."""

    def __init__(self, base: Base, config: Config) -> None:
        self.base = base
        self._config = config
        self._device = next(base.model.parameters()).device
        self._by_depth: dict[int, list[str]] = {}
        for path in base.lora:
            layer = layer_index(path, base.family.layers_path)
            assert layer is not None
            self._by_depth.setdefault(depth_of_layer(base.layers, config.lora.layers_per_group, layer), []).append(path)
        self.rest()

    @property
    def hidden_size(self) -> int:
        """The width of a hidden state."""
        size: int = self.base.model.config.hidden_size
        return size

    def modules_at(self, depth: int) -> list[str]:
        """The full paths of the modules that the stage at `depth` adapts."""
        return sorted(path for at in self._trained(depth) for path in self._by_depth[at])

    def tensor_names(self, depth: int) -> list[str]:
        """The sorted names of the adapter tensors that the stage at `depth` publishes."""
        return sorted(name for path in self.modules_at(depth) for name in weight_names(path))

    def parent_names(self, depth: int) -> list[str]:
        """The names of all adapter tensors in the parents of the stage at `depth`."""
        if self._continues(depth):
            return self.tensor_names(depth - 1)
        return [name for above in self._frozen(depth) for name in self.tensor_names(above)]

    def lowest_layer(self, depth: int) -> int:
        """The boundary of the stage: the lowest layer that it trains."""
        return trained_layers(self.base.layers, self._config.lora, self._config.slices, depth).start

    def begin(self, place: StagePlace, parents: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
        """Activate the stage at `place` and return its trainable parameters by published name.

        `parents` holds the tensors of the stages above it, by published name, and the task head of the last one.
        Raises TrainError if a tensor is missing.
        """
        depth = len(place.slices)
        trainable: dict[str, nn.Parameter] = {}
        for at in self._frozen(depth):
            for path in self._by_depth[at]:
                self._freeze(path, parents)
        for path in self.modules_at(depth):
            trainable |= self._start(path, place)
        trainable |= self._start_head(place)
        if self._continues(depth):
            _go_on(trainable, parents)
        # transformers checkpoints a layer's activations only if its training flag is set. The flag is not set on its
        # submodules, so their dropout stays off.
        for layer in self._layers()[self.lowest_layer(depth) :]:
            layer.training = self._config.engine.gradient_checkpointing
        return dict(sorted(trainable.items()))

    def show(self, tensors: Mapping[str, Tensor]) -> None:
        """Activate exactly the modules that `tensors` (by PEFT name) contains, all frozen."""
        self.rest()
        for path in self.base.lora:
            if weight_names(path)[0] in tensors:
                self._freeze(path, tensors)

    def rest(self) -> None:
        """Deactivate every adapter and drop its tensors, which leaves only the base."""
        for path in self.base.lora:
            layer = self.base.lora[path]
            layer.enable_adapters(False)
            self._set(path, torch.empty(0, 0), torch.empty(0, 0), trainable=False)
            layer.lora_dropout[ADAPTER].eval()
        for layer in self._layers():
            layer.training = False

    @contextmanager
    def cut(self, boundary: int) -> Iterator[None]:
        """In this context, the model starts at layer `boundary` and expects the states that enter that layer."""
        with with_layers(self.base, self._layers()[boundary:]):
            yield

    def check_unchanged(self, depth: int, parents: Mapping[str, Tensor]) -> None:
        """Raise TrainError unless the groups above `depth` still hold exactly the published bits.

        This guards against code that silently resets them.
        """
        for at in self._frozen(depth):
            active = self._active(at)
            with whole(list(active.values())):
                for name, parameter in active.items():
                    if not torch.equal(parameter.detach().cpu(), parents[name]):
                        raise TrainError(f"training at depth {depth} changed {name} of a parent", "report this bug")

    def _trained(self, depth: int) -> range:
        """The depths of the layer groups that the stage at `depth` trains."""
        return range(depth, depth + 1) if self._isolated else range(1, self._config.slices + 1)

    def _frozen(self, depth: int) -> range:
        """The depths of the layer groups that the stage at `depth` takes unchanged from its parents."""
        return range(1, depth) if self._isolated else range(0)

    def _continues(self, depth: int) -> bool:
        """Whether the stage at `depth` continues to train its parent's adapters."""
        return not self._isolated and depth > 1

    @property
    def _isolated(self) -> bool:
        return self._config.lora.isolation == "layers"

    def _active(self, depth: int) -> dict[str, nn.Parameter]:
        """The current adapter parameters of the group at `depth`, by PEFT name."""
        tensors: dict[str, nn.Parameter] = {}
        for path in self._by_depth[depth]:
            layer = self.base.lora[path]
            name_a, name_b = weight_names(path)
            tensors[name_a] = layer.lora_A[ADAPTER].weight
            tensors[name_b] = layer.lora_B[ADAPTER].weight
        return tensors

    def _layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.base.model.get_submodule(self.base.family.layers_path)
        return layers

    def _freeze(self, path: str, tensors: Mapping[str, Tensor]) -> None:
        name_a, name_b = weight_names(path)
        if name_a not in tensors or name_b not in tensors:
            raise TrainError(f"the published parents have no adapter for {path}", "train the parents again")
        self.base.lora[path].enable_adapters(True)
        self._set(path, tensors[name_a], tensors[name_b], trainable=False)

    def _start(self, path: str, place: StagePlace) -> dict[str, nn.Parameter]:
        """PEFT's initial values (A Kaiming-uniform, B zero), drawn from a generator seeded for this tensor."""
        layer = self.base.lora[path]
        layer.enable_adapters(True)
        layer.lora_dropout[ADAPTER].train()
        name_a, name_b = weight_names(path)
        a = torch.empty(self._config.lora.rank, layer.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=_generator(place, name_a))
        self._set(path, a, torch.zeros(layer.out_features, self._config.lora.rank), trainable=True)
        return {name_a: layer.lora_A[ADAPTER].weight, name_b: layer.lora_B[ADAPTER].weight}

    def _start_head(self, place: StagePlace) -> dict[str, nn.Parameter]:
        """Initialize the task head: every parameter that is not in the base folder, trained in float32."""
        trainable: dict[str, nn.Parameter] = {}
        spread = getattr(self.base.model.config, "initializer_range", 0.02)
        for name, shape in self.base.fresh.items():
            owner_path, _, leaf = name.rpartition(".")
            owner = self.base.model.get_submodule(owner_path)
            value = torch.zeros(shape)
            if value.dim() > 1:
                value.normal_(0.0, spread, generator=_generator(place, name))
            elif leaf == "weight":
                value.fill_(1.0)
            parameter = nn.Parameter(value.to(self._device))
            setattr(owner, leaf, parameter)
            trainable[name] = parameter
        return trainable

    def _set(self, path: str, a: Tensor, b: Tensor, *, trainable: bool) -> None:
        layer = self.base.lora[path]
        for module, value in ((layer.lora_A[ADAPTER], a), (layer.lora_B[ADAPTER], b)):
            module.weight = nn.Parameter(value.to(self._device, torch.float32, copy=True), requires_grad=trainable)


def _go_on(trainable: Mapping[str, nn.Parameter], parents: Mapping[str, Tensor]) -> None:
    """Copy the parent's values into the parameters. Raises TrainError if the names differ."""
    odd = sorted(trainable.keys() ^ parents.keys())
    if odd:
        raise TrainError(
            f"the tensors of the published parent and of this stage differ: {odd[:3]}", "train the parent again"
        )
    for name, parameter in trainable.items():
        parameter.data.copy_(parents[name])


def _generator(place: StagePlace, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(place.initial(name))
