"""The plan room: which stages are wanted, in which order, at what cost, and how much deletion they bear.

Pure: values in, values out. No Ray, no torch, no clock, no disk.
"""
