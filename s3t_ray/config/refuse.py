"""The error with which a validator refuses a value: field, value, reason and fix as separate parts.

`load.py` turns refusals into ConfigError. Code that builds a model directly gets a ValueError with the
same text. Never imports other modules of this package.
"""

from __future__ import annotations

from pydantic_core import PydanticCustomError

REFUSED = "refused"
"""The error type of our refusals among pydantic's error types."""


def refusal(field: str, value: object, why: str, fix: str) -> PydanticCustomError:
    """The error to raise if `field` (the full dotted name) must not be `value`."""
    context = {"field": field, "value": str(value), "why": why, "fix": fix}
    return PydanticCustomError(REFUSED, "{field} = {value}: {why}; {fix}", context)
