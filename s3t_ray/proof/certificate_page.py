"""The certificate as a page for the requester: one HTML file in plain words that checks itself in the browser.

In: entries of one deletion as they were signed, and a proof of their place in the log if there is one. Out: the text of
a self-contained file, and back. Pure. The page shows only what it has checked. But a page cannot vouch for itself,
because a forged page can show anything. So `read_page` requires exactly the text that this version writes, and checks
the entries in it like any others.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

from pydantic import ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import Value

_SCRIPTS = ("sha2.js", "ed25519.js", "signed_entries.js", "inclusion.js", "certificate.js")
_BEFORE, _AFTER = '<script type="application/json" id="signed">', "</script>"
_START = "<!doctype html>"
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters that would end a script or a line in it."""


class PageData(Value):
    """The data in a page."""

    version: str
    """Version of s3t_ray that wrote the page."""
    entries: tuple[str, ...]
    """Signed texts: the receipt and the certificates of one deletion."""
    proof: str | None
    """c2sp.org/tlog-proof of the newest certificate."""


def certificate_page(entries: Sequence[str], proof: str | None, version: str) -> str:
    """The complete page. The same values give the same text."""
    return _rendered(PageData(version=version, entries=tuple(entries), proof=proof))


def is_page(text: str) -> bool:
    """Whether this looks like a page rather than entries."""
    return text.lstrip()[: len(_START)].lower() == _START


def read_page(text: str, version: str) -> PageData:
    """The data in a page, with unchecked entries.

    VerificationFailed: it is not such a page, another version wrote it, or its text or code was changed, so it could
    show anything.
    """
    _, found, rest = text.partition(_BEFORE)
    try:
        data = PageData.model_validate_json(rest.partition(_AFTER)[0]) if found else None
    except ValidationError:
        data = None
    if data is None:
        raise VerificationFailed(
            "this page has no readable certificate", "give the file that `s3t certificate --html` wrote"
        )
    if data.version != version:
        raise VerificationFailed(
            f"s3t_ray {data.version[:40]} wrote this page, and this is {version}: whether its words and its code were "
            "changed cannot be told",
            "save the signed entries from the page (its button) and check those, or use that version",
        )
    if _rendered(data) != text:
        raise VerificationFailed(
            "this page is not exactly what s3t_ray writes: its text or its code was changed, so it may "
            "show something that was not signed",
            "do not rely on it: ask for the certificate again, and check that",
        )
    return data


def _rendered(data: PageData) -> str:
    script = "\n".join(_resource(name).replace('"use strict";\n', "", 1) for name in _SCRIPTS)
    script, style = f'"use strict";\n{script}', _resource("certificate.css")
    policy = (
        f"default-src 'none'; script-src '{_source(script)}'; style-src '{_source(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    held = json.dumps(data.model_dump(), ensure_ascii=False, sort_keys=True)
    held = "".join(_ESCAPED.get(letter, letter) for letter in held)
    page = _resource("certificate.html")
    # The data last, because it may contain anything.
    for name, value in (("policy", policy), ("version", data.version), ("style", style), ("script", script)):
        page = page.replace(f"{{{{{name}}}}}", value, 1)
    return page.replace("{{data}}", held, 1)


def _source(text: str) -> str:
    """A content security policy source that allows only this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _resource(name: str) -> str:
    return files("s3t_ray.proof").joinpath("page", name).read_text(encoding="utf-8")
