"""What a trial measured outlives its sweep: whole, on the disk, and never mistaken for something else."""

from __future__ import annotations

import errno
import os
from math import isnan
from pathlib import Path

import pytest

from s3t_ray.errors import DataError, StoreError
from s3t_ray.store.paths import temporary_name
from s3t_ray.sweep.measured_file import keep, kept, measured_file
from s3t_ray.sweep.result_file import save
from s3t_ray.sweep.space import Point
from s3t_ray.sweep.trials import Trial
from tests.fakes import small_config
from tests.unit.sweep.outcomes import measured, outcome


class Disk:
    """Counts what reaches the disk before each rename, and fails the rename if told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.full = False
        fsync, rename = os.fsync, os.rename

        def noted_fsync(fd: int) -> None:
            self.done.append("fsync")
            fsync(fd)

        def noted_rename(source: str, target: str) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.done.append("rename")
            rename(source, target)

        monkeypatch.setattr("os.fsync", noted_fsync)
        monkeypatch.setattr("os.rename", noted_rename)


def test_figures_come_back_as_they_were_kept(tmp_path: Path) -> None:
    file = tmp_path / "measured" / "a.json"
    assert kept(file) is None
    keep(file, measured((3.5, 2.25)))
    assert kept(file) == measured((3.5, 2.25))
    keep(file, measured((float("nan"),)))  # of a trial that diverged
    found = kept(file)
    assert found is not None and isnan(found.loss_by_depth[0])


def test_the_name_follows_from_all_that_the_figures_depend_on(tmp_path: Path) -> None:
    def name(limit: int | None, budget: int) -> Path:
        return measured_file(tmp_path, Trial(Point(()), small_config(tmp_path, budget=budget), "root"), limit)

    assert name(None, 1) == name(None, 1)
    assert len({name(None, 1), name(5, 1), name(None, 2)}) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"loss_by_depth": []}', '{"losses": [1.0]}'])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=f"{tmp_path}/a.json does not hold a trial's measurements"):
        kept(tmp_path / "a.json")


def test_they_are_on_the_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    keep(tmp_path / "a.json", measured((1.0,)))
    assert disk.done == ["fsync", "rename", "fsync"], "the file, its name, and its folder"


@pytest.mark.parametrize("write", [lambda file: keep(file, measured((2.0,))), lambda file: save(file, outcome("b"))])
def test_a_full_disk_or_a_killed_writer_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    assert callable(write)
    file, other = tmp_path / "a.json", tmp_path / temporary_name("another.json")
    write(file)
    before = file.read_bytes()
    disk = Disk(monkeypatch)
    disk.full = True
    with pytest.raises(StoreError, match="free disk space"):
        write(file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    disk.full = False
    (tmp_path / temporary_name("a.json")).write_text("half of")  # by a process that was killed
    other.write_text("of a writer that is at work")
    write(file)
    assert set(tmp_path.iterdir()) == {file, other}
