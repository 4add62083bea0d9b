"""A run's input data: ingest, a summary, malformed rows set aside, and later changes."""
