"""Keyed seals on the ledger's rows: set when rows are written, checked by an audit."""
