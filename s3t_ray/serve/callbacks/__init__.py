"""Callbacks: signed, retried messages to the systems of an office at each state of a deletion."""
