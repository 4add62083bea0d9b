"""The training engine: trains one stage on one worker group. Uses torch and DeepSpeed, never Ray."""
