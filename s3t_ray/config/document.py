"""Parses YAML into plain values with the line of every field. Rejects everything that could hide a value: duplicate
fields, aliases and Python tags.

In: YAML text, and `a.b=value` overrides. Out: a Document. Never constructs anything except plain values, and
never uses the schema.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from s3t_ray.errors import ConfigError

FieldPath = tuple[str | int, ...]

# libyaml's parser is about ten times as fast as PyYAML's own, and every command that opens a run reads its config. It
# follows nesting on the C stack without a limit, so the depth is checked first, on events.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_NESTED = 100

# YAML 1.1 parses 2e-5 as text (it requires 2.0e-5), but the number is always meant.
_PLAIN_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclass(frozen=True)
class Document:
    """A parsed config before validation. `places`: where each field was set, a line or an override."""

    origin: str
    tree: dict[str, Any]
    places: dict[FieldPath, str]

    def place(self, path: FieldPath) -> str:
        """Where the field at `path`, or its closest enclosing section, was set; "" if nowhere."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return ""


def parse_document(text: str, origin: str) -> Document:
    """The mapping in `text`. Raises ConfigError, with the line, if the YAML is invalid or not a mapping."""
    places: dict[FieldPath, str] = {}
    value = _construct(text, origin, places)
    if value is None:
        raise ConfigError(f"{origin} is empty", "write a config, or start from a ready one (see docs/config.md)")
    if not isinstance(value, dict):
        raise ConfigError(
            f"{origin} holds {_kind(value)}, not fields with values", "write `name: value` lines (see docs/config.md)"
        )
    return Document(origin, value, places)


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """`document` with each override `section.field=value` (value in YAML) applied. Raises ConfigError if one is
    malformed."""
    tree, places = _copy(document.tree), dict(document.places)
    for override in overrides:
        name, equals, text = override.partition("=")
        path = tuple(name.strip().split("."))
        if not equals or not all(path):
            raise ConfigError(f"override {override!r} is not of the form section.field=value", "write e.g. lora.rank=8")
        node = tree
        for depth, key in enumerate(path[:-1], start=1):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(
                    f"override {override!r}: {'.'.join(path[:depth])} is {_kind(node)}, not a section",
                    f"override {'.'.join(path[:depth])} itself",
                )
        node[path[-1]] = _construct(text, f"override of {name.strip()}", {})
        places[path] = "override"
    return Document(document.origin, tree, places)


def _construct(text: str, origin: str, places: dict[FieldPath, str]) -> Any:
    try:
        try:
            return _read(text, origin, places, _FastLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            # libyaml reports some errors a line late: PyYAML's parser says where they are.
            return _read(text, origin, places, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        told = [getattr(error, "context", None), getattr(error, "problem", None)]
        reason = ", ".join(words for words in told if words) or str(error).splitlines()[0]
        raise ConfigError(
            f"{origin}{line}: not valid YAML: {reason}", "check indentation, quotes and brackets there"
        ) from error


def _read(text: str, origin: str, places: dict[FieldPath, str], loader_type: Any) -> Any:
    _check_events(text, origin, loader_type)
    loader = loader_type(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _inspect(node, (), origin, places)
    return loader.construct_document(node)


def _check_events(text: str, origin: str, loader_type: Any) -> None:
    """Refuse aliases, and nesting so deep that reading it could overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=loader_type):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{origin} uses a YAML alias (*name)", "write the value in each place")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_NESTED:
            line = event.start_mark.line + 1
            raise ConfigError(
                f"{origin} line {line}: nested more than {_MOST_NESTED} levels deep",
                "no field needs that: write it flat",
            )


def _inspect(node: yaml.Node, path: FieldPath, origin: str, places: dict[FieldPath, str]) -> None:
    """Record each field's line, refuse duplicate fields, and read 2e-5 as a number."""
    line = node.start_mark.line + 1
    if path:
        places.setdefault(path, f"line {line}")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, key_line = str(key.value), key.start_mark.line + 1
            if name in seen:
                dotted = ".".join(str(part) for part in (*path, name))
                raise ConfigError(
                    f"{origin}: {dotted} is given twice, in lines {seen[name]} and {key_line}", "keep one of them"
                )
            seen[name] = key_line
            places[(*path, name)] = f"line {key_line}"
            _inspect(value, (*path, name), origin, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _inspect(value, (*path, index), origin, places)
    elif isinstance(node, yaml.ScalarNode) and not node.style and _PLAIN_FLOAT.fullmatch(node.value):
        node.tag = "tag:yaml.org,2002:float"


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def _kind(value: object) -> str:
    kinds = {list: "a list", dict: "a section", str: "text", type(None): "null"}
    return kinds.get(type(value), f"the value {value!r}")
