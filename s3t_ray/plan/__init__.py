"""Planning: which stages are needed, in which order, at what cost, and how many deletions they survive.

Pure: values in, values out. No Ray, no torch, no clock, no disk.
"""
