"""The base model on disk: its location, its sizes, and the digest of its bytes.

In: the `model` section. Out: a folder in Hugging Face format, its ModelShape, its digest. Never loads
weights, runs code from a model, or accepts pickled weights. Contacts the hub only if the path is not a
local folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3t_ray.config.base_files import read_json, stored_weights
from s3t_ray.config.families import FAMILIES, check_task_fits, named_family
from s3t_ray.config.refuse import refusal
from s3t_ray.config.schema import Config, Model, ModelShape
from s3t_ray.config.tasks import TASKS
from s3t_ray.errors import ConfigError

_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
PREPROCESSOR = "preprocessor_config.json"
"""A vision model's settings for resizing and normalizing images."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_READ_BYTES = 1 << 20


def find_base(model: Model) -> Path:
    """The folder of the base model. A hub name is downloaded once, to the hub's cache.

    Raises ConfigError if the model is neither local nor on the hub, or if its weight files are missing, truncated,
    pickled, quantized or those of an adapter.
    """
    folder = Path(model.path).expanduser()
    if not folder.is_dir():
        if folder.exists() or model.path.startswith(("/", ".", "~")):
            raise ConfigError(f"model.path = {model.path}: not a folder", "use the folder that contains config.json")
        folder = _download(model)
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"model.path = {model.path}: {folder} has no config.json", "name a Hugging Face model folder")
    stored_weights(folder)
    return folder.absolute()


def read_shape(folder: Path) -> ModelShape:
    """The sizes in the config.json of `folder`. Raises ConfigError for an unsupported family or an invalid size."""
    settings = read_json(folder / "config.json")
    family = named_family(settings.get("model_type"), f"{folder}/config.json")
    heads = _size(settings, "num_attention_heads", folder)
    if family.architecture == "vision":
        return _vision_shape(settings, heads, folder)
    positions = settings.get("max_position_embeddings")
    if positions is not None:
        positions = _size(settings, "max_position_embeddings", folder)
    if family.name == "roberta" and positions is not None:
        positions -= 2  # RoBERTa's first two rows are for padding
    kv_heads = heads
    if settings.get("num_key_value_heads") is not None:
        kv_heads = _size(settings, "num_key_value_heads", folder)
    hidden = _size(settings, "hidden_size", folder)
    head_size = None if settings.get("head_dim") is None else _size(settings, "head_dim", folder)
    _check_divides(heads, "num_attention_heads", kv_heads, "num_key_value_heads", folder)
    if head_size is None:
        _check_divides(hidden, "hidden_size", heads, "num_attention_heads", folder)
    return ModelShape(
        layers=_size(settings, "num_hidden_layers", folder),
        hidden=hidden,
        intermediate=_size(settings, "intermediate_size", folder),
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=_size(settings, "vocab_size", folder),
        tied_embeddings=_flag(settings, "tie_word_embeddings", family.tied_unless_told, folder),
        head_size=head_size,
        gated_mlp=family.gated_mlp,
        positions=positions,
    )


def _vision_shape(settings: Mapping[str, Any], heads: int, folder: Path) -> ModelShape:
    """The shape of a vision transformer: `vocabulary` is values per patch, `positions` is tokens per image."""
    side, patch = _size(settings, "image_size", folder), _size(settings, "patch_size", folder)
    if side % patch:
        raise ConfigError(
            f"{folder}/config.json: image_size {side} is not a multiple of patch_size {patch}", "restore the file"
        )
    if settings.get("num_channels", 3) != 3:
        raise ConfigError(
            f"{folder}/config.json: num_channels is {settings['num_channels']}", "use a base for images of 3 channels"
        )
    return ModelShape(
        layers=_size(settings, "num_hidden_layers", folder),
        hidden=_size(settings, "hidden_size", folder),
        intermediate=_size(settings, "intermediate_size", folder),
        heads=heads,
        kv_heads=heads,
        vocabulary=3 * patch * patch,
        tied_embeddings=True,
        gated_mlp=False,
        positions=(side // patch) ** 2 + 1,
    )


def check_base(config: Config, folder: Path) -> ModelShape:
    """Check that the config fits the base, and return the base's actual shape.

    Raises ConfigError if `model.shape` differs, or if the task, the layer groups or `task.max_tokens` do not fit.
    """
    check_task_fits(named_family(read_json(folder / "config.json").get("model_type"), f"{folder}/config.json"), config)
    real, told = read_shape(folder), config.model.shape
    if told is not None:
        # Fields that are null in the config are not compared.
        wrong = [
            f"{name} {value} (config.json: {getattr(real, name)})"
            for name, value in told.model_dump(exclude={"head_size"}).items()
            if value is not None and value != getattr(real, name)
        ]
        if told.head_dim != real.head_dim:
            wrong.append(f"head_size {told.head_dim} (config.json: {real.head_dim})")
        if wrong:
            raise ConfigError(f"model.shape differs from {folder}: {', '.join(wrong)}", "correct or remove model.shape")
    try:
        config.check_depth(real.layers)
        text = TASKS[config.task.kind].architecture != "vision"
        if text and real.positions is not None and config.task.max_tokens > real.positions:
            raise refusal(
                "task.max_tokens",
                config.task.max_tokens,
                f"the model takes at most {real.positions} tokens",
                f"set task.max_tokens to {real.positions} or less",
            )
    except ValueError as error:
        raise ConfigError(str(error), f"change the config, or use another base than {folder}") from error
    return real


def digest_base(folder: Path) -> str:
    """The SHA-256 over the names and bytes of all files in `folder` that affect what the model computes.

    These are the weights, config.json, and the tokenizer or (for a vision model) the preprocessor's settings. The
    generation settings, the README and the folder's name are excluded. Takes about a second per gigabyte. Raises
    ConfigError if a file cannot be read.
    """
    names = {path.name for pattern in _WEIGHTS for path in folder.glob(pattern)}
    others = (PREPROCESSOR,) if _is_vision(folder) else _TOKENIZER_FILES
    names |= {name for name in ("config.json", *others) if (folder / name).is_file()}
    hasher = hashlib.sha256(b"s3t/base/1")
    try:
        for name in sorted(names):
            path = folder / name
            hasher.update(len(name.encode()).to_bytes(8, "big") + name.encode())
            hasher.update(path.stat().st_size.to_bytes(8, "big"))
            with path.open("rb") as file:
                while piece := file.read(_READ_BYTES):
                    hasher.update(piece)
    except OSError as error:
        raise ConfigError(f"base model {folder} cannot be read: {error}", "restore the folder and try again") from error
    return hasher.hexdigest()


def _is_vision(folder: Path) -> bool:
    """Whether config.json names a vision model; False if it cannot be read, which other checks report."""
    try:
        told = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
    family = FAMILIES.get(told) if isinstance(told, str) else None
    return family is not None and family.architecture == "vision"


def _download(model: Model) -> Path:
    # Imported here because the hub's client takes a second to import, and local bases do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfUriError, HFValidationError, RevisionResolutionError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]

    wanted = [*_WEIGHTS, "config.json", "generation_config.json", PREPROCESSOR, *_TOKENIZER_FILES]
    try:
        return Path(snapshot_download(model.path, revision=model.revision, allow_patterns=wanted))
    except (HFValidationError, HfUriError) as error:
        raise ConfigError(
            f"model.path = {model.path}: neither a folder nor a hub name", "name a folder, or a model as owner/name"
        ) from error
    except (ClientError, RevisionResolutionError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model.path = {model.path} is not a local folder, and cannot be downloaded from the hub: {reason}",
            "check the name, your network and your access to the model, or use a local folder",
        ) from error


def _size(settings: Mapping[str, Any], name: str, folder: Path) -> int:
    value = settings.get(name)
    if type(value) is not int or value < 1:
        raise ConfigError(f"{folder}/config.json: {name} = {value!r}, not a positive whole number", "restore the file")
    return value


def _check_divides(whole: int, whole_name: str, part: int, part_name: str, folder: Path) -> None:
    if whole % part:
        raise ConfigError(
            f"{folder}/config.json: {whole_name} = {whole} is not a multiple of {part_name} = {part}",
            "restore the file",
        )


def _flag(settings: Mapping[str, Any], name: str, default: bool, folder: Path) -> bool:
    value = settings.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise ConfigError(f"{folder}/config.json: {name} = {value!r}, neither true nor false", "restore the file")
    return value
