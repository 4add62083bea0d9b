"""Rows out of files: which files a config names, where they are, their formats, splits and columns."""
