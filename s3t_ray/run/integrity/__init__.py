"""Checks whether storage, ledger and keys belong to one run at one point in time, and finds damage."""
