"""The head, the loss and the interpretation of outputs for each task."""
