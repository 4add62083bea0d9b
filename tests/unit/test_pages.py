"""The documentation agrees with the code: commands parse, and files, links, make targets and settings exist."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from s3t_ray.cli.exit_codes import exit_codes
from s3t_ray.cli.main import app
from s3t_ray.config.fields import fields
from s3t_ray.scheduler.metrics import COUNTERS, GAUGES
from s3t_ray.serve.http import openapi_document

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md"))
    if path.name != "CHANGELOG.md"  # what was true when it was written
)
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(
    r"(?<![\w/~.*-])(?:[A-Za-z_0-9-][A-Za-z_0-9.-]*/)+[A-Za-z_0-9.-]*\w\.(?:py|md|yaml|txt|json|cfg|toml|sh|svg)\b"
)
OF_RUNS = ("runs/", "slices/", "log/", "stages/", "shared/", "replay/", "adapters/")
"""First folders of paths that are a run's or a reader's, not the project's."""


def told(page: Path) -> list[str]:
    """Code on the page, line by line; a backslash at the end continues a line."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return blocks + INLINE.findall(BLOCK.sub("", text))


def lines_of(name: str) -> list[tuple[str, str]]:
    """(page, command) of every command of this name."""
    parts = (
        (page.name, part.strip().rstrip(')"'))
        for page in PAGES
        for line in told(page)
        for part in re.split(r";\s+|\s\|\s|\$\(", line)
    )
    return [(page, part) for page, part in parts if part.startswith(f"{name} ")]


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def words_of(line: str) -> list[str]:
    """The command's words: without its comment, or the explanation that stands behind two blanks."""
    command = re.split(r"\s{2,}|\s#|\s[<>]\s|\)", line)[0]
    return [word for word in shlex.split(command.replace("[", "").replace("]", "")) if word != "..."]


COMMANDS = [(page, line) for page, line in lines_of("s3t") if not line.endswith("-")]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 60 and len(PAGES) > 15


@pytest.mark.parametrize(("page", "line"), sorted(set(COMMANDS)))
def test_a_command_on_a_page_has_a_name_and_options_that_exist(page: str, line: str) -> None:
    words = words_of(line)[1:]
    command = command_line()
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        if words[0] not in command.commands:
            assert not command.name or command.name != "s3t", f"{page}: no command {words[0]}"
            break
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "-h"}
    used = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [option for option in used if option not in options] == [], page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_on_a_page_exists(page: Path) -> None:
    named = {name for line in told(page) for name in FILE.findall(line) if not name.startswith(OF_RUNS)}
    places = (ROOT, ROOT / "s3t_ray", ROOT / "tests" / "unit", ROOT / "tests", page.parent)
    missing = [name for name in sorted(named) if not any((place / name).exists() for place in places)]
    missing = [name for name in missing if not list(ROOT.glob(f"s3t_ray/*/{name}")) and "NAME" not in name]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_on_a_page_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text()))
    local = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_make_targets_on_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9]+)(?: [a-z0-9 ]+)?:", makefile, re.MULTILINE))
    targets |= set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    assert {line.split()[1] for _, line in lines_of("make")} - targets == set()


def test_settings_on_the_pages_exist() -> None:
    known = {field.path for field in fields()}
    sections = {path.rpartition(".")[0] for path in known} - {""}
    dotted = re.compile(r"^([a-z_]+(?:\.[a-z_]+)+)(?:[:=].*)?$")
    named = {
        (page.name, match[1])
        for page in PAGES
        for line in INLINE.findall(BLOCK.sub("", page.read_text()))
        if (match := dotted.match(line)) and match[1].split(".")[0] in sections
    }
    assert len(named) > 40
    file_names = (".py", ".md", ".yaml", ".json", ".cfg", ".jsonl")
    assert {(p, name) for p, name in named if name not in known | sections and not name.endswith(file_names)} == set()


def test_settings_that_a_command_overrides_exist() -> None:
    known = {field.path for field in fields()}
    given = [word for _, line in COMMANDS for word in words_of(line) if re.match(r"[a-z_]+(\.[a-z_]+)?=", word)]
    assert {word.partition("=")[0] for word in given} - known == set()


def test_metrics_on_the_pages_exist() -> None:
    known = {f"ray_{name}" for name in (*GAUGES, *(f"{name}_total" for name in COUNTERS))}
    known |= {"ray_s3t_ledger_up", "ray_s3t_scheduler_beats_total"}  # of the exporter alone
    named = {name for page in PAGES for name in re.findall(r"\bray_s3t_[a-z_]+[a-z]", page.read_text())}
    assert len(named) > 8 and named - known == set()


def test_the_page_on_clusters_lists_every_endpoint() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    paths = {path.replace("{model}", "{id}") for path in openapi_document()["paths"]}
    assert {path for path in paths if f"`{path}" not in page} == set()


def test_exit_codes_on_the_pages_exist() -> None:
    known = {code.code for code in exit_codes()}
    named = {int(code) for page in PAGES for code in re.findall(r"exit(?:s with)? code (\d+)", page.read_text())}
    assert named and named <= known
