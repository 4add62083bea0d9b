"""The only durable state of a run, in SQLite or PostgreSQL. Start reading at `ledger.py`.

It contains keyed HMACs, digests and states, never ids, contents or weights, and makes no decisions.
"""
