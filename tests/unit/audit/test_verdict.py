"""The verdict of a replay depends on bytes and on where they were made, not on our source files."""

from __future__ import annotations

import pytest

from s3t_ray.audit.verdict import judge, mismatches, same_files
from s3t_ray.run.reports import ReplayedStage, Verdict, Verification
from s3t_ray.store.manifest import ADAPTER_FILE, Manifest
from tests.fakes.manifests import untrained_manifest

VERSIONS = {"torch": "2.13.0", "python": "3.11.7", "s3t_ray": "0.1.0"}
MACHINE = {"device": "cpu", "cpu": "EPYC", "libc": "glibc2.36", "system": "Linux-6.1-x86_64-with-glibc2.36"}
OLD_MACHINE = {name: value for name, value in MACHINE.items() if name != "libc"}


def manifest(versions: dict[str, str] = VERSIONS, machine: dict[str, str] = MACHINE) -> Manifest:
    return untrained_manifest("s", {ADAPTER_FILE: "a"}, versions=versions, machine=machine)


ELSEWHERE = [
    manifest(versions=VERSIONS | {"torch": "2.14.0"}),
    manifest(versions=VERSIONS | {"python": "3.12.1"}),
    manifest(machine=MACHINE | {"cpu": "Xeon"}),
    manifest(machine=MACHINE | {"libc": "glibc2.39"}),
    manifest(machine=OLD_MACHINE | {"system": "Linux-6.1-x86_64-with-glibc2.39"}),
]
THE_SAME = [
    manifest(),
    manifest(versions=VERSIONS | {"s3t_ray": "0.2.0"}),
    manifest(versions=VERSIONS | {"engine": "c9d8538a15c611a1"}),  # as manifests up to 0.1 have it
    manifest(machine=MACHINE | {"system": "Linux-6.2-x86_64-with-glibc2.36"}),  # another kernel
    manifest(machine=OLD_MACHINE),
    manifest(machine={}),  # a manifest that tells nothing excuses nothing
]


@pytest.mark.parametrize("published", THE_SAME + ELSEWHERE)
def test_equal_bytes_are_equal_wherever_they_were_made(published: Manifest) -> None:
    assert judge(True, mismatches(published, manifest())) is Verdict.EQUAL


@pytest.mark.parametrize("published", THE_SAME)
def test_other_bytes_under_the_same_conditions_are_a_failure(published: Manifest) -> None:
    assert judge(False, mismatches(published, manifest())) is Verdict.DIFFERS
    assert mismatches(published, manifest()) == ()


@pytest.mark.parametrize("published", ELSEWHERE)
def test_other_bytes_under_other_conditions_prove_nothing(published: Manifest) -> None:
    assert judge(False, mismatches(published, manifest())) is Verdict.NOT_PROVED
    assert len(mismatches(published, manifest())) == 1


WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def test_files_are_the_same_wherever_the_base_lies() -> None:
    files = {WEIGHTS: b"w", "head.safetensors": b"h", CONFIG: b'{"r": 4, "base_model_name_or_path": "/there"}'}
    assert same_files(files, dict(files))
    assert same_files(files, files | {CONFIG: b'{"base_model_name_or_path": "/here", "revision": null, "r": 4}'})
    for name, data in (
        (WEIGHTS, b"v"),
        ("head.safetensors", b"v"),
        (CONFIG, b'{"r": 8, "base_model_name_or_path": "/there"}'),
        (CONFIG, b"[]"),
        (CONFIG, b"{"),
        (CONFIG, b"[" * 100_000),
    ):
        assert not same_files(files, files | {name: data})
    assert not same_files(files, {name: files[name] for name in (WEIGHTS, CONFIG)})


def test_what_differs_is_named() -> None:
    assert mismatches(ELSEWHERE[0], manifest()) == ("torch 2.14.0, here 2.13.0",)


@pytest.mark.parametrize(
    ("verdicts", "problems", "result"),
    [
        ((), (), "verified"),
        ((Verdict.EQUAL, Verdict.EQUAL), (), "verified"),
        ((Verdict.EQUAL, Verdict.NOT_PROVED), (), "not_proved"),
        ((Verdict.NOT_PROVED, Verdict.DIFFERS), (), "failed"),
        ((Verdict.EQUAL,), ("a slice was changed",), "failed"),
        ((Verdict.NOT_PROVED,), ("a slice was changed",), "failed"),
    ],
)
def test_a_verification_is_as_good_as_its_worst_stage(
    verdicts: tuple[Verdict, ...], problems: tuple[str, ...], result: str
) -> None:
    replayed = tuple(
        ReplayedStage(stage_id="s", shard=0, slices=(0,), verdict=verdict, largest_difference=0.0, mismatches=())
        for verdict in verdicts
    )
    assert Verification(records=1, stages=1, problems=problems, replayed=replayed).result == result
