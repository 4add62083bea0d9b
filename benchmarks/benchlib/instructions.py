"""Real instruction records for measuring training: docstrings of the running Python, or a file in Alpaca's format.

In: a file, or nothing. Out: records as canonical content, in an arbitrary order. Unlike the demo's records, these keep
complete docstrings, so their lengths vary as much as those of real instructions.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from s3t_ray.errors import DataError

MODULES = (
    "argparse",
    "asyncio.base_events",
    "collections",
    "concurrent.futures._base",
    "configparser",
    "contextlib",
    "csv",
    "difflib",
    "email.message",
    "fractions",
    "functools",
    "heapq",
    "http.client",
    "inspect",
    "logging",
    "mailbox",
    "os",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "ssl",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "typing",
    "unittest.case",
    "urllib.request",
    "zipfile",
)
SHORTEST, LONGEST = 40, 1500  # characters per answer


def instructions(file: Path | None) -> list[str]:
    """Contents of all records. DataError: the file is not a JSON list of instruction, input and output."""
    found = list(_docstrings()) if file is None else _from_file(file)
    texts = {json.dumps(record, ensure_ascii=False, sort_keys=True) for record in found}
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def _from_file(file: Path) -> list[dict[str, str]]:
    rows = json.loads(file.read_text())
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"instruction", "output"} <= row.keys() for row in rows
    ):
        raise DataError(f"{file} is not a list of instructions", "give JSON: [{instruction, input, output}, ...]")
    return [
        {"instruction": row["instruction"], "input": row.get("input", ""), "output": row["output"]}
        for row in rows
        if row["output"]
    ]


def _docstrings() -> Iterator[dict[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        place = library.joinpath(*module.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                yield from _of_source(module, ast.parse(path.read_text(encoding="utf-8")))
                break


def _of_source(name: str, node: ast.Module | ast.ClassDef) -> Iterator[dict[str, str]]:
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
            text = ast.get_docstring(child)
            if text and SHORTEST <= len(text) <= LONGEST and "@" not in text:
                asked = f"Explain `{name}.{child.name}` from Python's standard library."
                yield {"instruction": asked, "input": "", "output": text}
            if isinstance(child, ast.ClassDef):
                yield from _of_source(f"{name}.{child.name}", child)
