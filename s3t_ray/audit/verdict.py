"""The verdict on a stage that was trained again: equal, differs, or not proved. Pure.

In: whether the bytes are equal, and the two manifests. Out: a Verdict, and what was unlike. Equal bytes are equal
wherever they were made. Other bytes are a failure when hardware and library versions are the same, since training
repeats to the bit there. Anything else proves nothing, and must never pass for verified: the manifest of a stage lies
in the storage, so whoever swaps an adapter can also write that it was trained elsewhere.

The version of our own code has no part in this. Whether our code gives the same bits is what the recipe format says,
which is in every stage's id.
"""

from __future__ import annotations

from collections.abc import Mapping

from s3t_ray.run.reports import Verdict
from s3t_ray.train.manifest import Manifest

_NOT_COMPARED = frozenset({"engine", "s3t_ray", "system"})
"""Provenance that decides no bits: our version, the digest of our sources that manifests up to 0.1 hold, the kernel."""


def judge(equal: bool, published: Manifest, again: Manifest) -> Verdict:
    """`equal`: whether every file of the stage has the same bytes as when it was trained again."""
    if equal:
        return Verdict.EQUAL
    return Verdict.NOT_PROVED if mismatches(published, again) else Verdict.DIFFERS


def mismatches(published: Manifest, again: Manifest) -> tuple[str, ...]:
    """Hardware and library versions that are not the same, such as `torch 2.13.0, here 2.14.0`.

    Only what both manifests name is compared: what one leaves out excuses no difference.
    """
    before, now = conditions(published), conditions(again)
    return tuple(
        f"{name} {before[name]}, here {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    )


def conditions(manifest: Manifest) -> Mapping[str, str]:
    """All that the bits may depend on beside the recipe."""
    found = {**manifest.versions, **manifest.machine}
    _, _, libc = found.get("system", "").partition("-with-")
    if libc:  # manifests up to 0.1 name the C library, whose mathematics count, only here
        found.setdefault("libc", libc)
    return {name: value for name, value in found.items() if name not in _NOT_COMPARED}
