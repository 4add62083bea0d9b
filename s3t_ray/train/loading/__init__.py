"""Checks and loads the frozen base model, quantized or partitioned over ranks, and its tokenizer."""
