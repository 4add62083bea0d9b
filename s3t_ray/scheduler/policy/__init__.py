"""Decides what a run must do next, from frozen values alone."""
