"""Followers: external servers that are kept up to date with the live adapters, and that deletions wait for."""
