"""Stored hidden states: their files, their manifest, and the read-ahead for training steps."""
