"""Callbacks: signed, retried messages to external systems at each state of a deletion."""
