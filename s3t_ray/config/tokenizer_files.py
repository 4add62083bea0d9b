"""Checks the files of a base model's tokenizer without loading it, so that torch and transformers are not imported.

In: the folder of a base model. Out: nothing, or a ConfigError that names the file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from s3t_ray.config.base_files import check_text_file
from s3t_ray.errors import ConfigError

_FILES = ("tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "vocab.json", "vocab.txt")
_SETTINGS = "tokenizer_config.json"
_OTHER_TEMPLATE = "additional_chat_templates/default.jinja"
_OTHER_VOCABULARY = re.compile(r"tekken\.json|tiktoken\.model|tokenizer\.model\..+")
_TEMPLATE = "chat_template.jinja"


def check_tokenizer_files(folder: Path) -> None:
    """Raise ConfigError if there is no tokenizer, a file of it is damaged, or other files would be read instead."""
    present = [folder / name for name in _FILES if (folder / name).is_file()]
    if not present:
        raise ConfigError(
            f"{folder} contains no tokenizer ({', '.join(_FILES)})",
            "save the tokenizer there too: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )
    for path in (folder / _SETTINGS, folder / _TEMPLATE, *present):
        if path.is_file():
            check_text_file(path)
            _check_json(path)
    _check_no_detours(folder)


def _check_no_detours(folder: Path) -> None:
    """Raise ConfigError if transformers would read a file that the base's digest does not cover.

    A change to such a file would go unnoticed, and another version of transformers may read a different file.
    """
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8")) if (folder / _SETTINGS).is_file() else {}
    other = None
    if isinstance(settings, dict) and "fast_tokenizer_files" in settings:
        other = f"those in fast_tokenizer_files of {_SETTINGS}"
    elif (folder / _OTHER_TEMPLATE).exists():
        other = f"{_OTHER_TEMPLATE}, which overrides chat_template.jinja"
    elif not (folder / "tokenizer.json").is_file():
        other = next((path.name for path in sorted(folder.iterdir()) if _OTHER_VOCABULARY.fullmatch(path.name)), None)
    if other is not None:
        raise ConfigError(
            f"the tokenizer in {folder} would be read from other files than the standard ones: {other}",
            "remove it, or save the tokenizer again: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )


def _check_json(path: Path) -> None:
    if path.suffix != ".json":
        return
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}", "download the tokenizer again") from error
