"""Which base models can be trained and planned, and where their layers are: one table for every command.

In: config.json's model_type. Out: a Family. A family is listed only if its tests pass: its stages from stored hidden
states equal the full forward pass, packed records do not see each other, and its export loads in PEFT with equal
logits (docs/bases.md lists these models, and those that are refused and why). Never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.config.schema import Config
from s3t_ray.config.tasks import TASKS, Architecture
from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """One kind of base model, by its `model_type`."""

    name: str
    architecture: Architecture
    layers_path: str
    """Module path of the list of layers in the model with its head."""
    head_parts: tuple[str, ...] = ()
    """Modules of the task head, which a base without a head lacks, in the order of the forward pass."""
    tied_unless_told: bool = False
    """Whether embedding and vocabulary head are one where config.json is silent."""
    gated_mlp: bool = True
    """Three MLP matrices a layer, or two."""
    scales_embeddings: bool = False
    """Whether the model multiplies what comes in by `embedding_multiplier`, stored hidden states too if it were let."""
    logits_divisor: str | None = None
    """Setting of config.json by which the logits are divided."""
    positions_after_padding: bool = False
    """Whether a record's first position is the one after the padding token's."""
    mixes_attention: bool = False
    """Whether its layers take turns in how far they look back, so that its states cannot be stored."""

    @property
    def judges(self) -> bool:
        """Whether a head that each stage trains judges the whole record, instead of a vocabulary head each token."""
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
    """The family of a config.json's `model_type`; `place` names the file. ConfigError: it is not supported."""
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ConfigError(
            f"{place}: model_type {model_type!r} is not supported",
            f"use a base of one of these families: {', '.join(FAMILIES)} (docs/bases.md)",
        )
    return family


def check_task_fits(family: Family, config: Config) -> None:
    """ConfigError when this config's task cannot be trained on this family."""
    needed = TASKS[config.task.kind].architecture
    if family.architecture != needed:
        fitting = sorted(name for name, other in FAMILIES.items() if other.architecture == needed)
        kinds = " or ".join(name for name, task in TASKS.items() if task.architecture == family.architecture)
        raise ConfigError(
            f"task.kind {config.task.kind} does not fit the {family.name} model at {config.model.path}",
            f"set task.kind: {kinds}, or use a base of one of the families {', '.join(fitting)}",
        )
