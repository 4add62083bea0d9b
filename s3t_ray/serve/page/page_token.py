"""One token with access to everything, for a page that a single person starts."""

from __future__ import annotations

import hashlib
import hmac

from s3t_ray.serve.access.bearer_tokens import KINDS, Holder


class OneToken:
    """Gives access to model and deletions. Compared in constant time."""

    def __init__(self, token: str) -> None:
        self._holder = Holder("the page", hashlib.sha256(token.encode()).digest(), KINDS)

    def holder(self, authorization: str) -> Holder | None:
        """Holder of the token in the Authorization header; None for an unknown token."""
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).digest()
        fits = hmac.compare_digest(given, self._holder.digest)
        return self._holder if fits and scheme.lower() == "bearer" else None

    def knows(self, holder: Holder) -> bool:
        return holder == self._holder

    def spend(self, holder: Holder) -> float:
        """No quota."""
        return 0.0
