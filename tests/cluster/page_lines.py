"""The commands on a page, so that tests run exactly what readers are told to run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(page: str, heading: str) -> tuple[str, ...]:
    """The lines of the first code block under this heading of a page."""
    _, found, rest = (ROOT / page).read_text().partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    return tuple(line for line in rest.split("```\n")[1].splitlines() if line)


def filled(line: str, places: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What a line sets in the environment, and its words. `places`: what stands for what the page cannot know."""
    for named, actual in places.items():
        line = line.replace(named, actual)
    words = [word for word in shlex.split(line, comments=True) if word != "export"]
    environment: dict[str, str] = {}
    while words and "=" in words[0] and not words[0].startswith("-"):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    return environment, words
