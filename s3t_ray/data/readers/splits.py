"""Selects the files of a split in a folder by their names, with Hugging Face's conventions.

In: names of data files. Out: those of one split. Pure. Files of different splits are never mixed, so that nobody trains
on a test set by accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from s3t_ray.errors import DataError

_KEYWORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


_NOT_RECORDS = frozenset(
    {
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
        "package.json",
        "config.json",
        "metadata.json",
        "croissant.json",
        "adapter_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
    }
)
"""Files next to the data that describe it, or a model trained on it."""


def is_beside_data(name: str) -> bool:
    """Whether a file of this name (without folder) holds no records although it has the extension of a data file."""
    return name in _NOT_RECORDS


def split_named(folder: str) -> str | None:
    """The split that a folder is named after, such as validation for `val`; None if it is not named after one."""
    return _KEYWORDS.get(folder.lower())


def split_of(name: str) -> str | None:
    """The split according to the words in a file's name or its folders' names; None if there is none."""
    for part in reversed(name.split("/")):
        told = {_KEYWORDS[word] for word in re.split(r"[^a-z0-9]+", part.lower()) if word in _KEYWORDS}
        if len(told) == 1:
            return told.pop()
    return None


def of_split(names: Sequence[str], split: str, path: str) -> frozenset[str]:
    """The files among `names` that belong to `split`; all of them if there are not several splits.

    Raises DataError if there are several splits but no file of `split`.
    """
    told = {name: split_of(name) for name in names}
    kinds = {kind for kind in told.values() if kind is not None}
    if len(kinds) < 2:
        return frozenset(names)
    wanted = _KEYWORDS.get(split.lower(), split)
    kept = frozenset(name for name, kind in told.items() if kind == wanted)
    if not kept:
        raise DataError(
            f"data.path = {path}: the folder holds the splits {', '.join(sorted(kinds))}, but data.split is {split}",
            "set data.split to one of them, or set data.path to the files",
        )
    return kept


def of_another_split(names: Iterable[str], split: str) -> str | None:
    """The one split that all file names point to, if it is not `split`; else None."""
    kinds = {split_of(name) for name in names}
    only = kinds.pop() if len(kinds) == 1 else None
    return None if only == (split_named(split) or split) else only
