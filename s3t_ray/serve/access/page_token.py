"""One token that opens everything: for a page that one person starts for themselves."""

from __future__ import annotations

import hashlib
import hmac


class OneToken:
    """Opens model and deletions to whoever has it. Compared in constant time."""

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()

    def opens_model(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(given, self._digest) and scheme.lower() == "bearer"

    def opens_deletions(self, authorization: str) -> bool:
        return self.opens_model(authorization)
