"""Signers of a run: a key in a file, or one on a PKCS#11 token."""
