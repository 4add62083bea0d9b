"""Identifies visitors of the page by cookie or token, and refuses requests forged by other pages.

In: a request. Out: a `Visitor`, or a refusal. A token in the Authorization header takes precedence over a cookie. With
a cookie, every request that changes something, including sign-in, must come from the page's own origin.

The cookie is HttpOnly (scripts cannot read it), SameSite=Strict (other sites cannot send it), limited to /ui, and
contains a random name. Browsers store cookies by host without the port, so its name includes both, and two pages on one
machine do not sign each other out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from s3t_ray.serve.access.bearer_tokens import Holder
from s3t_ray.serve.page.page_sessions import Access, Sessions


@dataclass(frozen=True)
class Visitor:
    """A visitor, with all tokens that they have presented."""

    holders: tuple[Holder, ...]

    @property
    def reads(self) -> bool:
        return bool(self.holders)

    @property
    def asks(self) -> bool:
        """Whether they have access to the model."""
        return any("model" in holder.opens for holder in self.holders)

    @property
    def deletes(self) -> bool:
        return any("deletions" in holder.opens for holder in self.holders)


class PageDoor:
    """Identifies visitors by header or cookie, and signs them in and out."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions = Sessions(access)

    def visitor(self, request: HttpRequest) -> Visitor:
        """The visitor; anonymous if a request with a cookie may come from another page."""
        authorization = request.headers.get("authorization")
        if authorization is not None:
            holder = self._access.holder(authorization)
            return Visitor(() if holder is None else (holder,))
        name = _cookie(request)
        if name is None or not (request.method in ("GET", "HEAD") or from_own_page(request)):
            return Visitor(())
        return Visitor(self._sessions.holders(name))

    def wait(self, visitor: Visitor, kind: str) -> float:
        """Count one request for the token that opens `kind`. Returns the seconds until its quota allows it."""
        return next((self._access.spend(holder) for holder in visitor.holders if kind in holder.opens), 0.0)

    def sign_in(self, request: HttpRequest, token: str) -> Response | None:
        """The response that sets the cookie; None for an unknown token."""
        name = self._sessions.begin(token, _cookie(request))
        if name is None:
            return None
        answer = Response(status_code=204)
        self._set(request, answer, name)
        return answer

    def sign_out(self, request: HttpRequest) -> Response:
        """The response that removes the cookie. The session ends even if the browser keeps the cookie."""
        name = _cookie(request)
        if name is not None:
            self._sessions.end(name)
        answer = Response(status_code=204)
        self._set(request, answer, "", max_age=0)
        return answer

    def _set(self, request: HttpRequest, answer: Response, value: str, max_age: int | None = None) -> None:
        """Set the cookie. `secure` follows the browser's view, because TLS may end before this process."""
        answer.set_cookie(
            _cookie_name(request),
            value,
            max_age=max_age,
            path=f"{request.scope.get('root_path', '')}/ui",
            secure=request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://"),
            httponly=True,
            samesite="strict",
        )


def from_own_page(request: HttpRequest) -> bool:
    """Whether, according to the browser, the page itself made this request.

    Uses Sec-Fetch-Site, which browsers send to trustworthy origins and scripts cannot set; otherwise Origin, which they
    send with everything except GET.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return bool(site == "same-origin")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def _cookie(request: HttpRequest) -> str | None:
    found = request.cookies.get(_cookie_name(request))
    return found or None


def _cookie_name(request: HttpRequest) -> str:
    return f"s3t-session-{hashlib.sha256(request.headers.get('host', '').encode()).hexdigest()[:8]}"
