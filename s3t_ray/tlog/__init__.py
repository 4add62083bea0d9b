"""A transparency log in the C2SP formats: Merkle tree, tiles, checkpoints, proofs, cosignatures, a witness.

Pure except for the witness's own state. It knows nothing of runs, deletions or certificates: entries are bytes.
"""
