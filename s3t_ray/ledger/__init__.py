"""The only durable state of a run, in SQLite or PostgreSQL. Start reading at `ledger.py`.

It holds keyed HMACs, digests and states, never an id, a content or a weight, and makes no decisions.
"""
