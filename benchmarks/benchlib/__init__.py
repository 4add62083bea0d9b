"""Shared code of the benchmarks. Not part of the wheel: `python benchmarks/NAME.py` finds it in its own folder."""
