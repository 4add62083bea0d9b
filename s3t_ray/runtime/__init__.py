"""The Ray layer: actors as thin shells, worker groups, ranks and the two main paths (train, delete)."""
