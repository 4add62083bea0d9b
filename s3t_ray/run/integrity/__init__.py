"""Whether storage, ledger and keys are of one run and one time, and what is damaged."""
