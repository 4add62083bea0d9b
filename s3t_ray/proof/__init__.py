"""Issued proofs: signed entries of a run's log, and how anyone checks them. Pure: no run, no ledger."""
