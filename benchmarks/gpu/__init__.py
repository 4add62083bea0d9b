"""The kit that measures the engine on a GPU: `run.py` starts it, `experiments/` has a file for each question."""
