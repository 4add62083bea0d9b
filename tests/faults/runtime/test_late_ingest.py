"""Two processes start one run concurrently; the slower must not bring back records deleted in the meantime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import LedgerError
from s3t_ray.run import deletion
from s3t_ray.run.input import ingest
from s3t_ray.run.run import Run
from tests.faults.runtime.life import Life, config_of, deleted_by, requests, secret, write_data
from tests.faults.runtime.promises import found_in


class Killed(BaseException):
    """The end of a process, as far as its own code can tell."""


def leaks(folder: Path) -> list[str]:
    gone = deleted_by(folder, 1)
    return found_in(folder, [*gone, *map(secret, gone)], ("data.jsonl", "held.jsonl"))


def a_life_that_deletes(folder: Path) -> Life:
    life = Life(config_of(folder))
    life.settle()
    deletion.accept(life.run, *requests(folder)[0])
    life.settle()
    assert leaks(folder) == []
    return life


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, before: Callable[[], object]) -> None:
    """Let `before` happen when the late process is about to take this step of its ingest."""
    step = getattr(ingest, name)
    late: list[str] = []

    def delayed(*arguments: object, **options: object) -> object:
        if not late:  # the others' own steps pass
            late.append(name)
            before()
        return step(*arguments, **options)

    monkeypatch.setattr(ingest, name, delayed)


def late_ingest(folder: Path) -> None:
    with Run.create(config_of(folder)) as run:
        ingest.ingest(run, lambda line: None)


@pytest.fixture
def folder(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in a bucket: its copy of the data lies on its own machine, where no sweep of the storage reaches it."""
    write_data(quick)

    @contextmanager
    def elsewhere(run: Run, purpose: str, within: str = "") -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=tmp_path) as name:
            yield Path(name)

    monkeypatch.setattr(ingest, "scratch_folder", elsewhere)
    return quick


def test_one_that_has_not_written_yet_goes_on_with_the_run_of_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, "partition_rows", lambda: a_life_that_deletes(folder))
    late_ingest(folder)
    assert leaks(folder) == []
    with Run.open(folder / "run") as run:
        assert audit(run).problems == ()


def test_one_that_has_written_takes_it_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, "_upload", lambda: a_life_that_deletes(folder))
    with pytest.raises(LedgerError, match="already has run 'test'"):
        late_ingest(folder)
    assert leaks(folder) == []
    with Run.open(folder / "run") as run:
        assert audit(run).problems == ()


def test_what_one_left_that_was_killed_in_between_is_named_and_the_next_scheduler_erases_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives: list[Life] = []
    meanwhile(monkeypatch, "_upload", lambda: lives.append(a_life_that_deletes(folder)))

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_withdraw", killed)
        with pytest.raises(Killed):
            late_ingest(folder)
    assert leaks(folder), "the race is a real one"
    (life,) = lives
    told = audit(life.run).problems
    assert told and all("should be gone" in line for line in told)
    again = Life(config_of(folder))
    assert leaks(folder) == []
    again.settle()
    assert audit(again.run).problems == ()
