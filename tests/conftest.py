"""Shared by all tests: an isolated environment, quiet property tests, and one small local Ray.

Set before anything imports torch or Ray, which read the environment once.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from s3t_ray.runtime.connect import NAMESPACE

# Ray's own default depends on what an earlier command left in the home folder, and writes there.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_ID"):
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test downloads anything
os.environ["MPLBACKEND"] = "Agg"

# Machines differ in speed, so no example is timed. Every run uses the same examples.
settings.register_profile(
    "s3t", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("s3t")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray with 4 logical CPUs, shared by all tests that request it."""
    import ray

    ray.init(
        address="local",  # not a cluster that somebody has running on this machine
        num_cpus=4,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
        object_store_memory=200 * 1024 * 1024,
    )
    yield
    ray.shutdown()
