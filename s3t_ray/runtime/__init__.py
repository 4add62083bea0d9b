"""The Ray layer: thin actors, worker groups, ranks, and the two main paths (train, delete)."""
