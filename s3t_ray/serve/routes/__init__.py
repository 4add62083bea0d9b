"""The HTTP endpoints: each parses a request, asks a backend, and frames the answer."""
