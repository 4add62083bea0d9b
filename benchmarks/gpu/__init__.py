"""Benchmark kit for a GPU: `run.py` starts it, `experiments/` has one file per experiment."""
