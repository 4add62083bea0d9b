"""Keyed seals on what the ledger holds: set when rows are written, checked by an audit."""
