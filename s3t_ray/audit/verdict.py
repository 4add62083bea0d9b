"""The verdict on a retrained stage: equal, differs, or not proved. Pure.

In: whether the bytes are equal, and the two manifests. Out: a Verdict, and what was different. Equal bytes are equal
wherever they were made. Different bytes are a failure if hardware and library versions are the same, because training
repeats to the bit there. Anything else proves nothing, and must never count as verified: a stage's manifest is in the
storage, so someone who swaps an adapter can also write that it was trained elsewhere.

The version of our own code plays no part. The recipe format says whether our code gives the same bits, and it is part
of every stage's id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from s3t_ray.run.reports import Verdict
from s3t_ray.store.manifest import ADAPTER_CONFIG, Manifest

_PLACE = frozenset({"base_model_name_or_path", "revision"})
_NOT_COMPARED = frozenset({"engine", "s3t_ray", "system"})
"""Provenance that does not affect bits: our version, the source digest in manifests up to 0.1, the kernel."""


def same_files(published: Mapping[str, bytes], again: Mapping[str, bytes]) -> bool:
    """Whether the files of a stage are equal byte for byte, except for the base model's folder in the PEFT config.

    A moved or copied run has its base in another folder; the base's digest is in the recipe.
    """
    if published.keys() != again.keys():
        return False
    return all(
        data == again[name] or (name == ADAPTER_CONFIG and _without_place(data) == _without_place(again[name]))
        for name, data in published.items()
    )


def _without_place(data: bytes) -> object:
    try:
        settings = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(settings, dict):
        return data
    return {name: value for name, value in settings.items() if name not in _PLACE}


def judge(equal: bool, unlike: Sequence[str]) -> Verdict:
    """The verdict. `equal`: whether the retrained stage has the `same_files`. `unlike`: the `mismatches` of the stage
    and of its parents with different bytes, because it was trained on top of them."""
    if equal:
        return Verdict.EQUAL
    return Verdict.NOT_PROVED if unlike else Verdict.DIFFERS


def mismatches(published: Manifest, again: Manifest) -> tuple[str, ...]:
    """Hardware and library versions that differ, such as `torch 2.13.0, here 2.14.0`.

    Compares only what both manifests name: a missing value excuses no difference.
    """
    before, now = conditions(published), conditions(again)
    return tuple(
        f"{name} {before[name]}, here {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    )


def conditions(manifest: Manifest) -> Mapping[str, str]:
    """Everything besides the recipe that the bits may depend on."""
    found = {**manifest.versions, **manifest.machine}
    _, _, libc = found.get("system", "").partition("-with-")
    if libc:  # only here do manifests up to 0.1 name the C library, whose math affects bits
        found.setdefault("libc", libc)
    return {name: value for name, value in found.items() if name not in _NOT_COMPARED}
