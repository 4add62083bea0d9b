"""A run, opened, and everything read from it or read into it. Neither Ray nor torch."""
