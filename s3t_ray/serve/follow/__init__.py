"""Followers: servers outside that are kept on the live adapters, and that a deletion waits for."""
