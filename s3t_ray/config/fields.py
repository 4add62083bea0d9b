"""Lists all config fields from the schema, for error messages and docs/config.md.

Out: one FieldDoc per field, in the order of schema.py. Never imports torch or Ray.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from s3t_ray.config.model_shape import Section
from s3t_ray.config.schema import Config

_MARK = re.compile(r"\bRecipe\b")
_NAMES = {date: "date", str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}


@dataclass(frozen=True)
class FieldDoc:
    """One field: its dotted name, its accepted values, its default (None: required) and its docstring."""

    path: str
    section: str  # dotted name of the section; "" at the top
    takes: str
    default: str | None
    doc: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def decides_weights(self) -> bool:
        """Whether the docstring marks the field as part of the recipe."""
        return _MARK.search(self.doc) is not None


@dataclass(frozen=True)
class SectionDoc:
    """One section: its dotted name ("" is the top level), its docstring and its own fields."""

    path: str
    doc: str
    fields: tuple[FieldDoc, ...]


@cache
def sections() -> tuple[SectionDoc, ...]:
    """The sections of a config: the top level, then depth first in schema order."""
    return tuple(_walk(Config, ""))


@cache
def fields() -> tuple[FieldDoc, ...]:
    """Every field that is not itself a section."""
    return tuple(field for section in sections() for field in section.fields)


def _walk(model: type[Section], path: str) -> list[SectionDoc]:
    own: list[FieldDoc] = []
    inner: list[SectionDoc] = []
    for name, info in model.model_fields.items():
        dotted = f"{path}.{name}" if path else name
        nested = _section_of(info.annotation)
        if nested is None:
            doc = " ".join((info.description or "").split())
            own.append(FieldDoc(dotted, path, _takes(info.annotation, info.metadata), _default(info), doc))
        else:
            inner += _walk(nested, dotted)
    return [SectionDoc(path, " ".join((model.__doc__ or "").split()), tuple(own)), *inner]


def _section_of(annotation: object) -> type[Section] | None:
    candidates = get_args(annotation) or (annotation,)
    return next((item for item in candidates if isinstance(item, type) and issubclass(item, Section)), None)


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    value = info.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _takes(annotation: Any, metadata: list[Any]) -> str:
    """The accepted values as text: `whole number > 0`, `sdpa | eager`, `list of text | null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(arguments[0], [*_constraints(arguments[1:]), *metadata])
    if origin in (Union, UnionType):
        return " | ".join(_takes(item, metadata) for item in arguments)
    if origin is Literal:
        return " | ".join(str(item) for item in arguments)
    if origin is tuple:
        inner = _takes(arguments[0], [])
        return f"list of {inner}" if arguments[1:] == (Ellipsis,) else f"list of {len(arguments)}: each {inner}"
    words = [_NAMES.get(annotation, str(annotation))]
    for rule in metadata:
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            bound = getattr(rule, attribute, None)
            if bound is not None and annotation in (int, float):
                words.append(f"{sign} {bound}")
    return " ".join(words).replace("number >", "number, >").replace(" <", ", <").replace(",,", ",")


def _constraints(rules: tuple[Any, ...]) -> list[Any]:
    return [inner for rule in rules for inner in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
