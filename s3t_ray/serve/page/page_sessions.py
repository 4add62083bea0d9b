"""Sessions of the page in this process's memory, each identified by a cookie.

In: a token, once, at sign-in. Out: a random name for the cookie, and later the holders that it represents. Tokens are
neither stored nor sent again. A session ends when it is closed, idle for too long, or its last token is withdrawn. All
sessions end with the process.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from s3t_ray.serve.access.bearer_tokens import Holder

IDLE_SECONDS = 3600.0
LONGEST_SECONDS = 12 * 3600.0
MOST_SESSIONS = 1000
"""Maximum sessions; a new one replaces the longest idle."""


class Access(Protocol):
    """Maps tokens to their holders."""

    def holder(self, authorization: str) -> Holder | None:
        """Holder of the token in the Authorization header; None for an unknown token."""
        ...

    def knows(self, holder: Holder) -> bool:
        """Whether the holder's token is still valid."""
        ...

    def spend(self, holder: Holder) -> float:
        """Count one request. Returns 0, or the seconds until the quota allows the next one."""
        ...


@dataclass
class _Session:
    holders: tuple[Holder, ...]
    began: float
    used: float


class Sessions:
    """Thread-safe."""

    def __init__(self, access: Access, now: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._now = now
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Session] = {}

    def begin(self, token: str, name: str | None = None) -> str | None:
        """Create a session for the holder of `token`; None for an unknown token.

        `name`: an existing session, whose tokens the new one also gets. It ends, so that a name from before the sign-in
        becomes invalid.
        """
        holder = self._access.holder(f"Bearer {token}")
        if holder is None:
            return None
        before = () if name is None else self.holders(name)
        made = secrets.token_urlsafe(32)
        with self._lock:
            if name is not None:
                self._sessions.pop(_digest(name), None)
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.pop(min(self._sessions, key=lambda key: self._sessions[key].used))
            now = self._now()
            holders = (*(other for other in before if other.name != holder.name), holder)
            self._sessions[_digest(made)] = _Session(holders, now, now)
        return made

    def holders(self, name: str) -> tuple[Holder, ...]:
        """Holders of the session's tokens; empty if the session has ended."""
        with self._lock:
            session = self._sessions.get(_digest(name))
            if session is None:
                return ()
            now = self._now()
            if now - session.used > IDLE_SECONDS or now - session.began > LONGEST_SECONDS:
                del self._sessions[_digest(name)]
                return ()
            session.used = now
            held = session.holders
        return tuple(holder for holder in held if self._access.knows(holder))

    def end(self, name: str) -> None:
        """Sign out; a missing session is not an error."""
        with self._lock:
            self._sessions.pop(_digest(name), None)


def _digest(name: str) -> bytes:
    """Key of a session; a digest, so that this process's memory contains no cookie."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
