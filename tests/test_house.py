"""Rules of the codebase: allowed imports, start time of the command line, size of files."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "s3t_ray"
PURE_ROOMS = ("config", "data", "plan", "proof", "ledger", "store", "run", "tlog")
HEAVY = {"torch", "ray", "transformers", "peft", "deepspeed", "accelerate", "datasets"}
SOURCES = sorted(
    path for folder in ("s3t_ray", "tests", "benchmarks", "jobs", "examples") for path in (ROOT / folder).rglob("*.py")
)
MOST_LINES = 350
MOST_FUNCTION_LINES = 81
MOST_FILES = {"train": 28, "ledger": 25, "cli": 24, "plan": 22, "config": 22}
"""Maximum files per folder; 18 by default. A package that outgrows it holds a second idea: give it a subfolder."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules_of(*rooms: str) -> list[str]:
    paths = [path for room in rooms for path in sorted((PACKAGE / room).rglob("*.py"))]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def loaded_after(program: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `program`."""
    report = f"{program}\nimport json, sys\nprint()\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return {name.partition(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


def test_deciding_and_remembering_load_neither_torch_nor_ray() -> None:
    modules = modules_of(*PURE_ROOMS)
    assert len(modules) > 2 * len(PURE_ROOMS)
    assert not loaded_after("import " + ", ".join(modules)) & HEAVY


def test_a_local_store_does_not_load_pyarrow() -> None:
    assert "pyarrow" not in loaded_after("from s3t_ray.store import Store; Store.open('/nowhere').exists('x')")


def test_help_starts_without_torch_or_ray() -> None:
    program = (
        "import sys\nsys.argv = ['s3t', '--help']\nfrom s3t_ray.cli.main import app\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code"
    )
    loaded = loaded_after(program)
    assert "s3t_ray" in loaded
    assert not loaded & HEAVY


def test_the_command_is_installed() -> None:
    run = subprocess.run([Path(sys.executable).with_name("s3t"), "--help"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "delete" in run.stdout


def test_training_never_loads_ray() -> None:
    """Checked in the source, because importing torch here would cost seconds."""
    assert not {path.name for path in (PACKAGE / "train").rglob("*.py") if "ray" in imported(path)}


def test_files_hold_one_idea() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in sizes.items() if lines > MOST_LINES} == {}


def test_functions_are_short() -> None:
    sizes = {
        f"{path.relative_to(PACKAGE)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: lines for name, lines in sizes.items() if lines > MOST_FUNCTION_LINES} == {}


def test_rooms_hold_few_files() -> None:
    sizes = {path.parent.relative_to(PACKAGE): len(list(path.parent.glob("*.py"))) for path in PACKAGE.rglob("*.py")}
    crowded = {str(room): n for room, n in sizes.items() if n > MOST_FILES.get(str(room), 18)}
    assert crowded == {}


def stems() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stem != "__init__":
            found.setdefault(path.stem, []).append(str(path.relative_to(ROOT)))
    return found


def test_a_file_is_found_by_its_name() -> None:
    assert {stem: paths for stem, paths in stems().items() if len(paths) > 1} == {}


def public_classes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    return found


def test_a_public_class_is_found_by_its_name() -> None:
    assert {name: paths for name, paths in public_classes().items() if len(paths) > 1} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*.py")
        if path.read_text().strip() and not ast.get_docstring(parsed(path))
    ]
    assert silent == []


FORBIDDEN_CALLS = {
    "torch.load": "runs code of whoever wrote the file: use safetensors",
    "pickle.load": "runs code of whoever wrote the file",
    "pickle.loads": "runs code of whoever wrote the file",
    "yaml.load": "can build any object: use yaml.safe_load",
    "time.sleep": "cannot be woken: wait on a threading.Event",
}


@pytest.mark.parametrize("call", sorted(FORBIDDEN_CALLS))
def test_forbidden_calls(call: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call
    ]
    assert found == [], FORBIDDEN_CALLS[call]


def test_no_file_names_the_machine_it_was_written_on() -> None:
    home = re.compile(rf"(?<![\w.])/(?:root|home/\w+|Users/\w+)/|{re.escape(str(ROOT))}/")
    texts = {".py", ".md", ".cfg", ".toml", ".yaml", ".yml", ".txt", ""}
    named = [path.name for path in tracked() if path.suffix in texts and home.search(path.read_text())]
    assert named == []


def tracked() -> list[Path]:
    """Files of the project: what git would take, or in an unpacked archive everything but the environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    files = [ROOT / name for name in names] or [path for path in SOURCES if path.is_file()]
    return [path for path in files if path.is_file() and path.stat().st_size < 1_000_000]


# Packaging: imports are declared, and declared packages and their dependencies are pinned.


def declared(section: str, option: str) -> list[Requirement]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return [Requirement(line) for line in parser[section][option].split("\n") if line.strip()]


def extras() -> dict[str, list[Requirement]]:
    names = ("test", "demo", "docs", "quantize", "timestamps", "postgres")
    return {name: declared("options.extras_require", name) for name in names}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


OURS = sys.stdlib_module_names | {"s3t_ray", "tests", "benchlib", "gpu", "vision", "examples"}


def test_every_import_is_declared() -> None:
    asked = {canonical(requirement.name) for requirement in declared("options", "install_requires")}
    asked |= {canonical(requirement.name) for group in extras().values() for requirement in group}
    owners = packages_distributions()
    foreign = {name for path in SOURCES for name in imported(path)} - OURS
    undeclared = {name for name in foreign if not {canonical(owner) for owner in owners.get(name, ())} & asked}
    assert undeclared <= WITH_ANOTHER | ELSEWHERE


ELSEWHERE = {"langchain_openai", "litellm"}  # benchmarks/benchlib/client_calls.py runs in an environment of its own

WITH_ANOTHER = {
    "packaging",  # needed by pytest, transformers, ray and others
    "pydantic_core",  # the half of pydantic that names errors
    "tokenizers",  # the half of transformers that makes tiny tokenizers for tests
    "starlette",  # the half of fastapi, which ray[serve] brings
    "fastapi",
    "uvicorn",  # the server of ray[serve]
    "langchain_openai",  # benchmarks/clients.py tries these two in an environment of their own
    "litellm",
}


def test_every_requirement_is_pinned_with_all_it_needs() -> None:
    pinned = pins()
    queue = declared("options", "install_requires") + [item for group in extras().values() for item in group]
    missing, wrong, done = set(), set(), set()
    while queue:
        requirement = queue.pop()
        name = canonical(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in done:
            continue
        done.add(key)
        if name not in pinned:
            missing.add(name)
        elif not requirement.specifier.contains(pinned[name], prereleases=True):
            wrong.add(f"{requirement} but {pinned[name]}")
        queue += needs(requirement)
    assert (missing, wrong) == (set(), set())


def needs(requirement: Requirement) -> list[Requirement]:
    wanted = [Requirement(line) for line in distribution(requirement.name).requires or ()]
    chosen = requirement.extras or {""}
    return [
        item for item in wanted if not item.marker or any(item.marker.evaluate({"extra": extra}) for extra in chosen)
    ]


def test_every_dependency_has_its_reason() -> None:
    lines = [line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines()]
    start, end = lines.index("install_requires ="), lines.index("[options.extras_require]")
    listed = [line for line in lines[start + 1 : end] if line]
    for previous, line in zip(["", *listed], listed, strict=False):
        assert line.startswith("#") or previous.startswith("#"), f"say in a comment above why {line} is needed"


def test_the_python_range_is_the_same_everywhere() -> None:
    assert "python_requires = >=3.11,<3.14" in (ROOT / "setup.cfg").read_text()
    assert "(3, 11) <= sys.version_info < (3, 14)" in (ROOT / "tools" / "setup").read_text()
