"""Fixtures of the runtime's fault tests: a quick folder, and processes forked from a warm one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.fakes import fake_base, write_records
from tests.faults.runtime.crash import quick_folder

PEOPLE = [(f"r{number}", f"p{number % 5}") for number in range(24)]


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder on the quickest disk there is."""
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def folder(quick: Path) -> Path:
    """The same, with the base and the records of `PEOPLE` in it."""
    fake_base(quick / "base")
    write_records(quick / "data.jsonl", PEOPLE)
    return quick


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Processes forked from one that has done the imports and has nothing open."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.runtime.sample", "tests.faults.runtime.deleters"])
    return context
