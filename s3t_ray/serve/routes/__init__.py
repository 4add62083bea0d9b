"""The HTTP endpoints: each parses a request, calls a backend, and formats the response."""
