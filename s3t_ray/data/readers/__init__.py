"""Reads rows from the files that a config names: locations, formats, splits and columns."""
