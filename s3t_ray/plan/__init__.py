"""Planning: the stages that a run needs, their order and cost, and how many deletions they survive.

Pure: values in, values out. No Ray, no torch, no clock, no disk.
"""
