"""An open run, and everything that is read from it or into it. Neither Ray nor torch."""
