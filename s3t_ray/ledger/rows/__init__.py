"""Rows that the ledger's transactions read and write, with one file per table or pair of tables."""
