"""s3t_ray: exact, provable and cheap deletion for fine-tuned language models, on a Ray cluster.

Implements S3T (Sequence-aware Sharded Sliced Training, ICLR 2025). One idea carries the system:
a trained stage is named by everything it was trained on.
"""

__version__ = "0.1.0"
