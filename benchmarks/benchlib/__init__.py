"""What the benchmarks share. Not part of the wheel: `python benchmarks/NAME.py` finds it beside itself."""
