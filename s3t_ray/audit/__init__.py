"""Proofs about a run: verify, replay, leftovers, audit, membership inference. Reads only."""
