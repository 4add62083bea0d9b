"""Checks the files of a base model without loading them: finds missing, truncated and invalid weights and tokenizers.

In: a folder in Hugging Face format. Out: the name, shape and dtype of every stored weight, from the headers of the
safetensors files. Never reads a weight, imports torch, or trusts a size that a file states about itself.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from s3t_ray.errors import ConfigError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_POINTER = b"version https://git-lfs.github.com/"
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_BYTES |= {"U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1}
_FLOATS = ("F64", "F32", "F16", "BF16")
COMPUTED_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Ends of names in published checkpoints (BERT and RoBERTa among them) that are no weights: the model computes them."""
_LONGEST_HEADER = 100 << 20  # bytes; the limit of safetensors
_DETOURS = ("configuration_files", "transformers_weights")
"""Entries of config.json that make transformers read other files than those that are checked."""
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
_TOKENIZER_SETTINGS = "tokenizer_config.json"
_OTHER_TEMPLATE = "additional_chat_templates/default.jinja"
_OTHER_VOCABULARY = re.compile(r"tekken\.json|tiktoken\.model|tokenizer\.model\..+")
_TEMPLATE = "chat_template.jinja"
_RESTORE = "download the model again, or restore the file from a complete copy"


@dataclass(frozen=True)
class StoredWeight:
    """One tensor of a safetensors file, as its header describes it."""

    file: str
    shape: tuple[int, ...]
    dtype: str  # safetensors' name, such as BF16


def stored_weights(folder: Path) -> dict[str, StoredWeight]:
    """Every weight that loading `folder` would use, by name. Reads only the headers, which takes milliseconds.

    Raises ConfigError if a file is missing, truncated, a Git LFS pointer or not safetensors; if a weight is stored
    twice; if there is an adapter beside the weights; if the weights are quantized; or if config.json redirects to other
    files.
    """
    _check_no_adapter(folder)
    _check_settings(folder)
    found: dict[str, StoredWeight] = {}
    for name, expected in _files(folder).items():
        header = _read_header(folder / name)
        if lacking := sorted(set(expected) - header.keys()):
            raise ConfigError(
                f"{folder / INDEX} says that {name} holds {_some(lacking)}, but it does not", "download the model again"
            )
        if twice := sorted(header.keys() & found.keys()):
            raise ConfigError(
                f"{folder}: {_some(twice)} is stored twice, in {found[twice[0]].file} and in {name}; which one counts "
                "depends on the loader",
                "save the model again with save_pretrained, or download it again",
            )
        found |= {name: weight for name, weight in header.items() if not name.endswith(COMPUTED_BUFFERS)}
    if odd := sorted(name for name, weight in found.items() if weight.dtype not in _FLOATS):
        raise ConfigError(
            f"{folder}: {_some(odd)} is stored as {found[odd[0]].dtype}, not as floating point numbers",
            "use the model's original weights (bfloat16, float16 or float32), and set model.quantize to quantize them",
        )
    return found


def check_text_file(path: Path) -> None:
    """Raise ConfigError if a configuration or tokenizer file is a Git LFS pointer, empty or unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", _RESTORE) from error
    _check_start(path, start)


def _check_start(path: Path, start: bytes) -> None:
    if start == _POINTER:
        raise ConfigError(
            f"{path} is a Git LFS pointer, not the file itself",
            "run `git lfs install && git lfs pull` in the folder, or download the model again",
        )
    if not start:
        raise ConfigError(f"{path} is empty", _RESTORE)


def _check_no_adapter(folder: Path) -> None:
    path = folder / _ADAPTER
    if not path.is_file():
        return
    try:
        name = json.loads(path.read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        name = None
    of = f" of {name}" if name else ""
    if (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds an adapter ({_ADAPTER}) in addition to the base model: loading the base would apply it",
            f"move {_ADAPTER} and adapter_model.safetensors elsewhere, or merge the adapter into the weights first",
        )
    raise ConfigError(
        f"{folder} holds only an adapter{of}, not a base model",
        f"name the base model{of} in model.path, or merge the adapter into it and save the result",
    )


def _check_settings(folder: Path) -> None:
    settings = read_json(folder / "config.json")
    if detours := [name for name in _DETOURS if name in settings]:
        raise ConfigError(
            f"{folder}/config.json makes the loader read other files than the standard ones ({detours[0]}: "
            f"{settings[detours[0]]})",
            "save the model again with save_pretrained, or rename these files to the standard names and remove the "
            "entry",
        )
    found = settings.get("quantization_config")
    if found is not None:
        method = found.get("quant_method", "unknown") if isinstance(found, dict) else "unknown"
        raise ConfigError(
            f"{folder}/config.json: the weights are already quantized (quantization_config, method {method})",
            "use the model's original weights; model.quantize: 8bit or 4bit quantizes them when they are loaded",
        )


def _files(folder: Path) -> dict[str, list[str]]:
    """The weight files that transformers reads, with the weights that the index assigns to each."""
    if (folder / SINGLE).is_file():
        return {SINGLE: []}
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        if others:
            raise ConfigError(
                f"{folder} has neither {SINGLE} nor {INDEX}, only {_some(others)}",
                f"restore {INDEX}, or save the model with save_pretrained",
            )
        raise ConfigError(
            f"{folder} has no {SINGLE}",
            "save the model with save_pretrained (safetensors); pickled weights (*.bin, *.pth) are not accepted",
        )
    placed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ConfigError(f"{folder / INDEX} has no weight_map", _RESTORE)
    files: dict[str, list[str]] = {}
    for weight, name in placed.items():
        files.setdefault(name, []).append(weight)
    strange = sorted(name for name in files if Path(name).name != name)
    if strange:
        raise ConfigError(f"{folder / INDEX} names {_some(strange)}, which is outside the folder", _RESTORE)
    missing = sorted(name for name in files if not (folder / name).is_file())
    if missing:
        raise ConfigError(f"{folder} lacks {len(missing)} of {len(files)} weight files: {_some(missing)}", _RESTORE)
    return dict(sorted(files.items()))


def _read_header(path: Path) -> dict[str, StoredWeight]:
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
            _check_start(path, start)
            size = path.stat().st_size
            if len(start) < 8:
                raise ConfigError(f"{path} is truncated after {size} bytes", _RESTORE)
            (length,) = struct.unpack("<Q", start[:8])
            if length > min(_LONGEST_HEADER, size - 8):
                raise ConfigError(f"{path} is not a complete safetensors file: its header is truncated", _RESTORE)
            file.seek(8)
            header = json.loads(file.read(length))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", _RESTORE) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a safetensors file: its header is not JSON", _RESTORE) from error
    if not isinstance(header, dict):
        raise ConfigError(f"{path} is not a safetensors file: its header is not an object", _RESTORE)
    header.pop("__metadata__", None)
    spans: list[tuple[int, int]] = []
    weights: dict[str, StoredWeight] = {}
    for name, told in header.items():
        weights[name], span = _weight(path, name, told)
        spans.append(span)
    spans.sort()
    whole = spans[-1][1] if spans else 0
    if any(left[1] != right[0] for left, right in pairwise(spans)) or (spans and spans[0][0] != 0):
        raise ConfigError(f"{path} is not a safetensors file: its weights overlap or leave gaps", _RESTORE)
    if size - 8 - length != whole:
        raise ConfigError(
            f"{path} has {size:,} bytes, but its header describes {8 + length + whole:,}: it is truncated or "
            "overwritten",
            _RESTORE,
        )
    return weights


def _weight(path: Path, name: str, told: Any) -> tuple[StoredWeight, tuple[int, int]]:
    try:
        shape, dtype = tuple(told["shape"]), told["dtype"]
        start, end = told["data_offsets"]
        fits = end - start == prod(shape) * _BYTES[dtype] and 0 <= start <= end and all(side >= 0 for side in shape)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(f"{path} is not a safetensors file: its header describes {name!r} incorrectly", _RESTORE)
    return StoredWeight(path.name, shape, dtype), (start, end)


def read_json(path: Path) -> Mapping[str, Any]:
    """The JSON object in a configuration file. Raises ConfigError if it is missing or not a JSON object."""
    check_text_file(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", _RESTORE) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object", _RESTORE)
    return found


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_tokenizer_files(folder: Path) -> None:
    """Raise ConfigError if there is no tokenizer, a file of it is damaged, or other files would be read instead."""
    present = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    if not present:
        raise ConfigError(
            f"{folder} contains no tokenizer ({', '.join(_TOKENIZERS)})",
            "save the tokenizer there too: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )
    for path in (folder / _TOKENIZER_SETTINGS, folder / _TEMPLATE, *present):
        if path.is_file():
            check_text_file(path)
            _check_tokenizer_json(path)
    _check_no_other_tokenizer(folder)


def _check_no_other_tokenizer(folder: Path) -> None:
    """Raise ConfigError if transformers would read a file that the base's digest does not cover.

    A change to such a file would go unnoticed, and another version of transformers may read a different file.
    """
    settings = (
        json.loads((folder / _TOKENIZER_SETTINGS).read_text(encoding="utf-8"))
        if (folder / _TOKENIZER_SETTINGS).is_file()
        else {}
    )
    other = None
    if isinstance(settings, dict) and "fast_tokenizer_files" in settings:
        other = f"those in fast_tokenizer_files of {_TOKENIZER_SETTINGS}"
    elif (folder / _OTHER_TEMPLATE).exists():
        other = f"{_OTHER_TEMPLATE}, which overrides chat_template.jinja"
    elif not (folder / "tokenizer.json").is_file():
        other = next((path.name for path in sorted(folder.iterdir()) if _OTHER_VOCABULARY.fullmatch(path.name)), None)
    if other is not None:
        raise ConfigError(
            f"the tokenizer in {folder} would be read from other files than the standard ones: {other}",
            "remove it, or save the tokenizer again: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )


def _check_tokenizer_json(path: Path) -> None:
    if path.suffix != ".json":
        return
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}", "download the tokenizer again") from error
