"""Who is signed in to the page: sessions in this process's memory, each named by a cookie.

In: a token, once, at the sign-in. Out: a random name for the cookie, and later the holders that it stands for. A token
is neither kept nor sent again. A session ends when it is closed, when it rests too long, and as soon as the last token
behind it is withdrawn; all end with the process.
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
"""The one that rested longest makes room for a new one."""


class Access(Protocol):
    """Whose token is whose."""

    def holder(self, authorization: str) -> Holder | None:
        """Holder of the token in the Authorization header; None: an unknown token."""
        ...

    def knows(self, holder: Holder) -> bool:
        """Whether the holder's token still opens anything."""
        ...

    def spend(self, holder: Holder) -> float:
        """Count one request; 0, or after how many seconds the quota lets the next one through."""
        ...


@dataclass
class _Session:
    holders: tuple[Holder, ...]
    began: float
    used: float


class Sessions:
    """Every method may be called from any thread."""

    def __init__(self, access: Access, now: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._now = now
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Session] = {}

    def begin(self, token: str, name: str | None = None) -> str | None:
        """A new session for the holder of `token`; None: nobody's.

        `name`: a session that already exists, whose tokens the new one has too. It ends: a name from before the
        sign-in is worth nothing after it.
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
        """Whose tokens the session stands for; none: there is no such session any more."""
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
        """Sign out; a session that is not there is no error."""
        with self._lock:
            self._sessions.pop(_digest(name), None)


def _digest(name: str) -> bytes:
    """What a session is kept under: a look at this process's memory shows no cookie."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
