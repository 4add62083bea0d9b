"""Decides what a run must do next, and does it: place, prune, purge, certify. Never imports Ray."""
