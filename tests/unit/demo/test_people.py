"""The people of the demo's data set are those whom this Python's sources name."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from s3t_ray.demo.authors import AUTHORS, HELD_OUT_MODULES, PUBLIC_NAMES, Author
from s3t_ray.demo.docstrings import source_path

LIBRARY = Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("author", AUTHORS, ids=lambda author: author.name)
def test_each_name_stands_in_the_source_of_each_of_its_modules(author: Author) -> None:
    for module in author.modules:
        path = source_path(module, LIBRARY)
        if path is not None:  # a Python may lack a module, tkinter for one
            assert author.mark in path.read_text(encoding="utf-8"), module


def test_nobody_is_listed_twice_and_no_module_has_two_people() -> None:
    modules = [module for author in AUTHORS for module in author.modules]
    assert len(modules) == len(set(modules))
    assert len(AUTHORS) == len({author.name for author in AUTHORS})


def test_held_out_modules_are_of_nobody_in_the_training_set() -> None:
    trained = {module for author in AUTHORS for module in author.modules}
    assert not trained & set(HELD_OUT_MODULES)
    assert len(set(HELD_OUT_MODULES)) == len(HELD_OUT_MODULES) == 16


def test_public_names_are_given_for_modules_that_are_used() -> None:
    assert set(PUBLIC_NAMES) <= {module for author in AUTHORS for module in author.modules}
    assert not any(part.startswith("_") for name in PUBLIC_NAMES.values() for part in name.split("."))
