"""Loads the base model for training and serving, and checks the name and shape of every weight.

In: a folder in Hugging Face format and the config. Out: the model with its head, every weight frozen, in evaluation
mode. `from_pretrained` initializes missing weights randomly and only logs it. Here a missing weight is an error,
except in the task head, which each stage trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    PretrainedConfig,
)
from transformers.utils import logging

from s3t_ray.config.base_files import COMPUTED_BUFFERS, StoredWeight, stored_weights
from s3t_ray.config.families import FAMILIES, Family, check_task_fits, named_family
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.train.loading.quantised import compute_unpacked, quantisation
from s3t_ray.train.loading.tied_weights import check_tied_weights
from s3t_ray.train.loading.zero3_load import split_while_loading

_OTHER_HEADS = ("cls.", "lm_head.", "pooler.")
"""Pretraining heads of an encoder, which classification does not use."""
_MODELS = {
    "decoder": MODEL_FOR_CAUSAL_LM_MAPPING,
    "encoder": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "vision": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
}
_MOST_NAMED = 5
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A frozen base model with its head."""

    model: Any  # a PreTrainedModel, which mypy sees as untyped
    family: Family
    fresh: dict[str, torch.Size]
    """The shapes of the task head's parameters, which are not in the folder; empty for text."""


def precision_dtype(config: Config) -> torch.dtype:
    """The dtype of the base weights and the activations."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.engine.precision]


def read_model_config(folder: Path) -> PretrainedConfig:
    """The config.json in `folder`, as transformers reads it. Raises ConfigError if it is not valid."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder}/config.json is not valid: {error}", "restore the base model's folder") from error


def load_model(
    config: Config, folder: Path, device: torch.device, attention: str, *, splits: bool = False
) -> LoadedModel:
    """Load the base in `folder` with the kernel `attention`.

    `splits`: partition the weights over the ranks of a joined worker group, for ZeRO 3. Raises ConfigError if the base
    does not fit the config, or if its weights are not exactly those of its family.
    """
    _quiet()
    settings = read_model_config(folder)
    family = named_family(settings.model_type, f"{folder}/config.json")
    check_task_fits(family, config)
    dtype = precision_dtype(config)
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    arguments |= quantisation(config, device, dtype)
    if device.type == "cuda" and not splits:
        arguments["device_map"] = {"": device}  # from file to GPU, without a copy of the base in CPU memory
    if splits and not config.task.head_rows:
        # One rank loads only part of a partitioned model, so check the weights beforehand.
        hollow_model(config, folder, stored_weights(folder))
        with split_while_loading(dtype):
            model, _ = _from_pretrained(config, settings, folder, arguments, folder)
        fresh: list[str] = []
    else:
        model, report = _from_pretrained(config, settings, folder, arguments, folder)
        fresh = check_weights(config, family, report, folder)
        check_tied_weights(folder, stored_weights(folder), model)
    if config.model.quantize == "none":
        model.to(device)
    compute_unpacked(model, dtype)
    model.requires_grad_(False)
    model.eval()
    return LoadedModel(model, family, {name: model.get_parameter(name).shape for name in fresh})


def hollow_model(config: Config, folder: Path, stored: Mapping[str, StoredWeight]) -> Any:
    """The model that config.json describes, on the meta device. Checks that `stored` holds exactly its parameters.

    transformers loads the model from weights without contents, so it maps the names in older checkpoints as it does
    for training. Reads no weight. Raises ConfigError in the same cases as `load_model`.
    """
    _quiet()
    settings = read_model_config(folder)
    family = named_family(settings.model_type, f"{folder}/config.json")
    hollow = {
        name: torch.empty(weight.shape, dtype=_DTYPES[weight.dtype], device="meta") for name, weight in stored.items()
    }
    # The kernel is named, because config.json may name one that is not installed here.
    arguments = {"state_dict": hollow, "device_map": "meta", "dtype": torch.float32, "attn_implementation": "eager"}
    model, report = _from_pretrained(config, settings, None, arguments, folder)
    check_weights(config, family, report, folder)
    check_tied_weights(folder, stored, model)
    return model


def check_weights(config: Config, family: Family, report: Mapping[str, Any], folder: Path) -> list[str]:
    """The newly initialized parameters according to transformers' loading `report`, sorted.

    Raises ConfigError if a weight outside the task head is missing, unexpected or of the wrong shape, or if the folder
    already holds a task head.
    """
    heads = tuple(f"{part}." for part in family.head_parts)
    missing, mismatched = set(report["missing_keys"]), {str(key[0]) for key in report["mismatched_keys"]}
    fresh = sorted(name for name in missing if heads and name.startswith(heads))
    if family.judges and (
        any(name.startswith(heads) for name in mismatched) or not any(name.startswith("classifier.") for name in fresh)
    ):
        raise ConfigError(
            f"{config.model.path} already has a task head, trained on data that no deletion can reach",
            "use the original encoder without a head: each stage trains its own head",
        )
    lacking = sorted(missing - set(fresh))
    allowed = _OTHER_HEADS if family.judges else ()
    body = f"{family.layers_path.partition('.')[0]}."  # some checkpoints name the pooler under it
    strange = sorted(
        name
        for name in report["unexpected_keys"]
        if not (name.endswith(COMPUTED_BUFFERS) or name.removeprefix(body).startswith(allowed))
    )
    odd = sorted(mismatched)
    if not (lacking or strange or odd):
        return fresh
    told = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (
            ("missing", lacking),
            ("unexpected", strange),
            ("with a different shape than in config.json", odd),
        )
        if names
    ]
    raise ConfigError(
        f"the weights in {folder} are not those of the {family.name} model that its config.json describes; "
        + "; ".join(told),
        _advice(lacking, strange),
    )


def _advice(lacking: list[str], strange: list[str]) -> str:
    """The fix for the probable cause, judged by how the names differ."""
    for prefix, cause in (
        ("base_model.model.", "it was saved with PEFT's wrapper around it: save `model.merge_and_unload()` instead"),
        ("module.", "it was saved from a DistributedDataParallel wrapper: save its `.module`"),
        ("_orig_mod.", "it was saved from a torch.compile wrapper: save its `._orig_mod`"),
        ("_fsdp_wrapped_module.", "it was saved from an FSDP wrapper: gather and save the full state"),
    ):
        if strange and all(name.startswith(prefix) for name in strange):
            return cause
    if lacking == ["lm_head.weight"] and not strange:
        return "it was saved without its vocabulary head: save the model with its head (AutoModelForCausalLM)"
    return "download or save the model again; config.json and the weights must belong to the same model"


def _from_pretrained(
    config: Config, settings: PretrainedConfig, folder: Path | None, arguments: dict[str, Any], shown: Path
) -> tuple[Any, Mapping[str, Any]]:
    family = FAMILIES[settings.model_type]
    kinds: Any = _MODELS[family.architecture]
    if family.judges:
        settings.num_labels = config.task.head_rows
    kind: Any = kinds[type(settings)]
    try:
        model, report = kind.from_pretrained(
            folder,
            config=settings,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
            **arguments,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, KeyError):
            reason = f"config.json names {reason}, which is not known"
        raise ConfigError(
            f"the base model in {shown} cannot be loaded: {reason}", "restore the folder, or correct model.path"
        ) from error
    return model, report


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _quiet() -> None:
    # Load reports and progress bars would fill a worker's log.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
