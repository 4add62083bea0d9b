"""Shapes of the models that are measured. Random weights: only the sizes are those of the published models."""

from __future__ import annotations

from s3t_ray.config.schema import ModelShape

LLAMA_2_13B = ModelShape(layers=40, hidden=5120, intermediate=13824, heads=40, kv_heads=40, vocabulary=32000)
LLAMA_3_8B = ModelShape(layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocabulary=128256)
TINY = ModelShape(layers=4, hidden=64, intermediate=128, heads=4, kv_heads=2, vocabulary=300)
"""For dry runs, and for the bits of a stage."""
