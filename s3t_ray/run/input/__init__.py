"""A run's input data: reading it in, a summary of it, malformed rows set aside, and later changes to it."""
