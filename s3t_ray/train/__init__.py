"""The training engine: one stage on one worker group. torch and DeepSpeed, never Ray (DESIGN.md)."""
