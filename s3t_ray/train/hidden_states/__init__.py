"""Stored hidden states: their files, their manifest, and how a stage reads them ahead of its steps."""
