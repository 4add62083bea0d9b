"""Describes the endpoints for programs (OpenAPI) and for people (a self-contained page).

In: the OpenAPI document. Out: routes.

| endpoint | token | answer |
|---|---|---|
| GET /openapi.json | any | the document |
| GET /docs | any | the same as a page |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, JSONResponse, Response

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:0 .2em}table{border-collapse:collapse}td,th{text-align:left;padding:.2em .8em .2em 0"
    ";vertical-align:top}:root{color-scheme:light dark}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def description_routes(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """The routes of the table above; `document` is called once."""
    routes = APIRouter(include_in_schema=False)
    made = lru_cache(maxsize=1)(document)

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return JSONResponse(made())

    @routes.get("/docs")
    def page() -> Response:
        return HTMLResponse(describe(made()), headers={"content-security-policy": _POLICY})

    return routes


def describe(document: Mapping[str, Any]) -> str:
    """The page: each endpoint with the fields of its request."""
    parts = [f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(document['info'].get('description', ''))}</p>")
    schemas = document.get("components", {}).get("schemas", {})
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            parts.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>")
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = str(body.get("$ref", "")).rpartition("/")[2]
            if name in schemas:
                parts.append(_fields(schemas[name]))
    page = "\n".join(parts)
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>API</title><style>{_STYLE}</style>{page}</html>"


def _fields(schema: Mapping[str, Any]) -> str:
    rows = [f"<p>{escape(str(schema.get('description', '')))}</p><table><tr><th>field<th>type<th>default</tr>"]
    needed = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in needed else str(field.get("default", ""))
        rows.append(f"<tr><td><code>{escape(name)}</code><td>{escape(_type(field))}<td>{escape(default)}</tr>")
    return "".join(rows) + "</table>"


def _type(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(each) for each in field["anyOf"]))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "enum" in field or "const" in field:
        return " or ".join(repr(value) for value in field.get("enum", [field.get("const")]))
    kind = str(field.get("type", "any"))
    return f"list of {_type(field['items'])}" if kind == "array" and "items" in field else kind
