"""The supported families of base models and the location of their layers: one table for all commands.

In: config.json's model_type. Out: a Family. A family is listed only if its tests pass: training from stored hidden
states equals the full forward pass, packed records do not affect each other, and exports load in PEFT with equal
logits. docs/bases.md lists the supported models, and the refused ones with reasons. Never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.config.schema import Config
from s3t_ray.config.tasks import TASKS, Architecture
from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """A family of base models with the same `model_type`."""

    name: str
    architecture: Architecture
    layers_path: str
    """Module path of the layer list in the model with its head."""
    head_parts: tuple[str, ...] = ()
    """Modules of the task head, which are not in the base's weights, in the order of the forward pass."""
    tied_unless_told: bool = False
    """Whether embedding and vocabulary head share weights by default, if config.json does not say."""
    gated_mlp: bool = True
    """Whether a layer has three MLP matrices instead of two."""
    scales_embeddings: bool = False
    """Whether the model multiplies its input by `embedding_multiplier`, which stored hidden states must skip."""
    logits_divisor: str | None = None
    """The config.json setting by which the logits are divided."""
    positions_after_padding: bool = False
    """Whether the position of a record's first token is the one after the padding token's id."""
    mixes_attention: bool = False
    """Whether layers alternate between kinds of attention, so that hidden states cannot be stored."""

    @property
    def judges(self) -> bool:
        """Whether a task head, trained by each stage, scores the record, instead of a vocabulary head each token."""
        return self.architecture != "decoder"


_TEXT = (
    Family("llama", "decoder", "model.layers"),
    Family("mistral", "decoder", "model.layers"),
    Family("qwen2", "decoder", "model.layers"),
    Family("qwen3", "decoder", "model.layers"),
    Family("olmo2", "decoder", "model.layers"),
    Family("smollm3", "decoder", "model.layers", tied_unless_told=True),
    Family("phi3", "decoder", "model.layers"),
    Family("gemma", "decoder", "model.layers", tied_unless_told=True),
    Family("gemma3_text", "decoder", "model.layers", tied_unless_told=True, mixes_attention=True),
    Family("granite", "decoder", "model.layers", scales_embeddings=True, logits_divisor="logits_scaling"),
)
_ENCODERS = (
    Family(
        "bert",
        "encoder",
        "bert.encoder.layer",
        head_parts=("bert.pooler", "classifier"),
        tied_unless_told=True,
        gated_mlp=False,
    ),
    Family(
        "roberta",
        "encoder",
        "roberta.encoder.layer",
        head_parts=("classifier",),
        tied_unless_told=True,
        gated_mlp=False,
        positions_after_padding=True,
    ),
)
_VISION = (Family("vit", "vision", "vit.layers", head_parts=("classifier",), tied_unless_told=True, gated_mlp=False),)
FAMILIES = {family.name: family for family in (*_TEXT, *_ENCODERS, *_VISION)}


def named_family(model_type: object, place: str) -> Family:
    """The family of a config.json's `model_type`; `place` names the file. Raises ConfigError if it is not supported."""
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ConfigError(
            f"{place}: model_type {model_type!r} is not supported",
            f"use a base of one of these families: {', '.join(FAMILIES)} (docs/bases.md)",
        )
    return family


def check_task_fits(family: Family, config: Config) -> None:
    """Raise ConfigError if this config's task cannot be trained on this family."""
    needed = TASKS[config.task.kind].architecture
    if family.architecture != needed:
        fitting = sorted(name for name, other in FAMILIES.items() if other.architecture == needed)
        kinds = " or ".join(name for name, task in TASKS.items() if task.architecture == family.architecture)
        raise ConfigError(
            f"task.kind {config.task.kind} does not fit the {family.name} model at {config.model.path}",
            f"set task.kind: {kinds}, or use a base of one of the families {', '.join(fitting)}",
        )
