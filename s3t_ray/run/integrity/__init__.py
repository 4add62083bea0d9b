"""Whether storage, ledger and keys belong to one run at one point in time, and what is damaged."""
