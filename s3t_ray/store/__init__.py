"""The storage of a run's files on a local disk, S3 or GCS, with atomic publishing and complete erasure."""

from s3t_ray.store.store import Store

__all__ = ["Store"]
