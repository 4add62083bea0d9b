"""Which files of a folder belong to a split, by their names, as Hugging Face's folders have them.

In: names of data files. Out: those of one split. Pure. A folder with files of several splits is never read as one:
training on a test set is the worst of silent mistakes.
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
"""Files beside data that describe it, or a model that was trained on it."""


def is_beside_data(name: str) -> bool:
    """Whether a file of this name, without its folder, holds no records although its ending is that of a data file."""
    return name in _NOT_RECORDS


def split_named(folder: str) -> str | None:
    """The split that a folder's whole name is, such as `val` for validation; None: it is none."""
    return _KEYWORDS.get(folder.lower())


def split_of(name: str) -> str | None:
    """The split that the words of a file's name, or of its folders' names, tell; None: they tell none."""
    for part in reversed(name.split("/")):
        told = {_KEYWORDS[word] for word in re.split(r"[^a-z0-9]+", part.lower()) if word in _KEYWORDS}
        if len(told) == 1:
            return told.pop()
    return None


def of_split(names: Sequence[str], split: str, path: str) -> frozenset[str]:
    """Of `names`, those of `split`; all of them where they are not of several splits.

    Raises DataError: they are of several splits, and none is of `split`, or some cannot be told.
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
            "set data.split to one of them, or the files themselves in data.path",
        )
    return kept


def of_another_split(names: Iterable[str], split: str) -> str | None:
    """The one split that the names of files tell, all of them, where it is not `split`; None: it is, or they do not."""
    kinds = {split_of(name) for name in names}
    only = kinds.pop() if len(kinds) == 1 else None
    return None if only == (split_named(split) or split) else only
