"""How a validator refuses a value: the field, its value, the reason and the fix, kept apart.

`load.py` turns refusals into ConfigError; a caller that builds a model directly sees a ValueError
with the same words. Must never import anything of ours.
"""

from __future__ import annotations

from pydantic_core import PydanticCustomError

REFUSED = "refused"
"""Type of every refusal of ours among pydantic's own error types."""


def refusal(field: str, value: object, why: str, fix: str) -> PydanticCustomError:
    """The error to raise when `field` (dotted, from the top of the config) may not be `value`."""
    context = {"field": field, "value": str(value), "why": why, "fix": fix}
    return PydanticCustomError(REFUSED, "{field} = {value}: {why}; {fix}", context)
