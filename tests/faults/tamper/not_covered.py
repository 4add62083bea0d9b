"""What no audit finds, and why: every other tampering must be caught, at every moment."""

NOTHING_THERE = "there is no such row or file at this moment"

REASONS: dict[str, str] = {}
"""By the name of a kind."""
