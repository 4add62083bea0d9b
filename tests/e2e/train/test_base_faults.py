"""Faults injected into a base's folder: each is refused with the file's name, or does not change the bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from s3t_ray.config.base_model import find_base
from s3t_ray.errors import ConfigError
from s3t_ray.train.loading.check_base import check_base_model
from tests.e2e.train.lab import Lab, make_lab, train
from tests.tiny import tiny_llama

FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
UNUSED = {"generation_config.json"}
"""Files that neither training nor serving reads."""
DAMAGE = ("missing", "empty", "half", "three bytes short")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_llama(tmp_path_factory.mktemp("base"), layers=3)
    assert {path.name for path in folder.iterdir()} == set(FILES), "a file that no fault is injected into"
    return folder


def lab_of(folder: Path, base: Path) -> Lab:
    task = {"prompt": "chat_template", "max_tokens": 64}
    return make_lab(folder, base=base, records=2, lora={"layers_per_group": 1}, task=task)


def adapter_of(lab: Lab) -> bytes:
    train(lab.trainer(), lab.job("s", (0,)))
    return lab.adapter("s")


def damaged(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: {"empty": 0, "half": len(data) // 2, "three bytes short": len(data) - 3}[how]])


def test_each_file_missing_or_cut_off(base: Path, tmp_path: Path) -> None:
    whole = adapter_of(lab_of(tmp_path / "whole", base))
    passed = set()
    for name in FILES:
        for how in DAMAGE:
            copy = Path(shutil.copytree(base, tmp_path / f"{name} {how}"))
            damaged(copy / name, how)
            lab = lab_of(tmp_path / f"run {name} {how}", copy)
            try:
                check_base_model(lab.config, find_base(lab.config.model))
            except ConfigError as error:
                assert name in f"{error.problem} {error.fix}", (name, how, str(error))
                continue
            passed.add(name)
            assert adapter_of(lab) == whole, (name, how)
    assert passed == UNUSED
