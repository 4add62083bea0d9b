"""An open run, and everything that reads from it or writes to it. Uses neither Ray nor torch."""
