"""The demo's data set: docstrings from the running Python's standard library.

In: the library's source files, parsed and never imported. Out: two JSONL files of instruction
records (id, instruction, input, output, subject). The subject is the person whom the module's
source names as its author. The second file is held out from training. Nothing is downloaded and
nothing is random: the same Python gives the same bytes. No record ever contains an author's email
address.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from s3t_ray.demo.authors import AUTHORS, HELD_OUT_MODULES, PUBLIC_NAMES, Author
from s3t_ray.errors import DataError, StoreError

TRAIN_FILE = "demo-data.jsonl"
HOLDOUT_FILE = "demo-holdout.jsonl"
RECORDS_PER_PERSON = 5
SHORTEST, LONGEST = 80, 180  # characters per docstring; 180 characters are about 45 response tokens
FEWEST_PEOPLE = 12

# Signature lines, doctests, lists, markup and email addresses are not prose.
_NOT_PROSE = re.compile(r"[<>@\\|]|::|:\w+:|--|``|\*\*|\b(Args?|Arguments|[Aa]ttributes):|^[\w.]*\(|\be\.g\.$| - ")


@dataclass(frozen=True)
class DemoRecord:
    """One row of the data set. `id` is the dotted public name that the record explains."""

    id: str
    instruction: str
    input: str
    output: str
    subject: str | None  # None: a held-out record, which belongs to nobody in the run


@dataclass(frozen=True)
class DemoData:
    """The records that were written, and the files that hold them."""

    path: Path
    holdout_path: Path
    records: tuple[DemoRecord, ...]
    holdout: tuple[DemoRecord, ...]
    people: tuple[str, ...]

    def records_of(self, person: str) -> tuple[DemoRecord, ...]:
        """The records whose subject is `person`."""
        return tuple(record for record in self.records if record.subject == person)


def write_demo_data(folder: Path, library: Path | None = None) -> DemoData:
    """Write demo-data.jsonl and demo-holdout.jsonl into `folder` and return their records.

    `library` is the standard library's folder (default: the running Python's). Raises DataError if
    too few source files exist, StoreError if `folder` cannot be written.
    """
    root = library if library is not None else Path(sysconfig.get_path("stdlib"))
    records = tuple(record for author in AUTHORS for record in _records_of(author, root))
    holdout = tuple(record for module in HELD_OUT_MODULES for record in _held_out_record(module, root))
    people = tuple(dict.fromkeys(record.subject for record in records if record.subject is not None))
    if len(people) < FEWEST_PEOPLE or not holdout:
        raise DataError(
            f"only {len(people)} of the demo's {len(AUTHORS)} authors have readable sources under {root}",
            "run the demo with a Python whose standard library is installed as .py files (any standard CPython)",
        )
    data = DemoData(folder / TRAIN_FILE, folder / HOLDOUT_FILE, records, holdout, people)
    _write_jsonl(data.path, records)
    _write_jsonl(data.holdout_path, holdout)
    return data


def source_path(module: str, library: Path) -> Path | None:
    """The source file of a standard library module, or None if this Python has none. Imports nothing."""
    base = library.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def docstrings(module: str, library: Path) -> dict[str, str]:
    """Public name -> opening prose of its docstring, for every public definition in `module`.

    Keeps only texts of SHORTEST to LONGEST characters that end with a full sentence, and only the
    first of several equal texts. Empty if this Python lacks the module.
    """
    path = source_path(module, library)
    if path is None:
        return {}
    found: dict[str, str] = {}
    seen: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, documentation in _public_definitions(tree, PUBLIC_NAMES.get(module, module)):
        text = opening_prose(documentation)
        if text is not None and text not in seen:
            found.setdefault(name, text)
            seen.add(text)
    return found


def opening_prose(documentation: str) -> str | None:
    """The leading paragraphs that fit in LONGEST characters, joined on one line; None if they are not prose."""
    text = ""
    for paragraph in re.split(r"\n\s*\n", documentation):
        longer = f"{text} {' '.join(paragraph.split())}".strip()
        if len(longer) > LONGEST or _NOT_PROSE.search(longer):
            break
        text = longer
    whole = text.endswith(".") and text.count("(") == text.count(")")
    return text if len(text) >= SHORTEST and whole else None


def _public_definitions(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, str]]:
    for child in node.body:
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        name = f"{prefix}.{child.name}"
        documentation = ast.get_docstring(child)
        if documentation:
            yield name, documentation
        if isinstance(child, ast.ClassDef):
            yield from _public_definitions(child, name)


def _records_of(author: Author, library: Path) -> list[DemoRecord]:
    texts = {name: text for module in author.modules for name, text in docstrings(module, library).items()}
    return [_record(name, texts[name], author.name) for name in _draw(texts)[:RECORDS_PER_PERSON]]


def _held_out_record(module: str, library: Path) -> list[DemoRecord]:
    texts = docstrings(module, library)
    return [_record(name, texts[name], None) for name in _draw(texts)[:1]]


def _draw(names: Iterable[str]) -> list[str]:
    """`names` in an arbitrary order. Adding or removing a name does not reorder the others."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def _record(name: str, text: str, subject: str | None) -> DemoRecord:
    return DemoRecord(name, f"Explain `{name}` from Python's standard library.", "", text, subject)


def _write_jsonl(path: Path, records: Iterable[DemoRecord]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(
            f"cannot write the demo's records to {path} ({error.strerror})",
            "choose a folder that you can write to and that has free space",
        ) from error
