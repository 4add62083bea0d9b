"""Who asks the page for something, and whether the page itself asks: the cookie, and requests forged by other pages.

In: a request. Out: a `Visitor`, or a refusal. A token in the Authorization header counts before a cookie. With a cookie
every request that changes something, the sign-in among them, must come from the page's own origin.

The cookie is HttpOnly (no script reads it), SameSite=Strict (no other site sends it), goes to /ui alone, and carries a
random name. A browser keeps cookies by host without the port, so its name is made from both: two pages on one machine
do not sign each other out.
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
    """Whoever asks, with all tokens that they have shown."""

    holders: tuple[Holder, ...]

    @property
    def reads(self) -> bool:
        return bool(self.holders)

    @property
    def asks(self) -> bool:
        """Whether the model is open to them."""
        return any("model" in holder.opens for holder in self.holders)

    @property
    def deletes(self) -> bool:
        return any("deletions" in holder.opens for holder in self.holders)


class PageDoor:
    """Knows visitors by header or cookie, and signs them in and out."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions = Sessions(access)

    def visitor(self, request: HttpRequest) -> Visitor:
        """Whoever asks; nobody when a cookie comes with a request that another page may have made."""
        authorization = request.headers.get("authorization")
        if authorization is not None:
            holder = self._access.holder(authorization)
            return Visitor(() if holder is None else (holder,))
        name = _cookie(request)
        if name is None or not (request.method in ("GET", "HEAD") or from_own_page(request)):
            return Visitor(())
        return Visitor(self._sessions.holders(name))

    def wait(self, visitor: Visitor, kind: str) -> float:
        """Count one request of whichever token opens `kind`; after how many seconds its quota allows it."""
        return next((self._access.spend(holder) for holder in visitor.holders if kind in holder.opens), 0.0)

    def sign_in(self, request: HttpRequest, token: str) -> Response | None:
        """The answer that sets the cookie; None: the token is nobody's."""
        name = self._sessions.begin(token, _cookie(request))
        if name is None:
            return None
        answer = Response(status_code=204)
        self._set(request, answer, name)
        return answer

    def sign_out(self, request: HttpRequest) -> Response:
        """The answer that takes the cookie back; the session is over whether or not the browser heeds it."""
        name = _cookie(request)
        if name is not None:
            self._sessions.end(name)
        answer = Response(status_code=204)
        self._set(request, answer, "", max_age=0)
        return answer

    def _set(self, request: HttpRequest, answer: Response, value: str, max_age: int | None = None) -> None:
        """`secure` by what the browser says: TLS may end before this process."""
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
    """Whether a browser says that the page itself, and no other, made this request.

    By Sec-Fetch-Site, which browsers send to trustworthy origins and no script can set; else by Origin, which they send
    with everything that is not a GET.
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
