"""The ledger room: the only durable truth of a run, in SQLite or PostgreSQL (`ledger.py` is the way in).

It holds keyed HMACs, digests and states, never an id, a content or a weight, and decides nothing.
"""
