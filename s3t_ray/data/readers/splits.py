"""Which files of a folder belong to a split, by their names, as Hugging Face's folders have them.

In: names of data files. Out: those of one split. Pure. A folder with files of several splits is never read as one:
training on a test set is the worst of silent mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
