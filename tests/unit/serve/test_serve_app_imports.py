"""What stands before the model and beside it: processes that need no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "s3t_ray.serve.app",
        "s3t_ray.ensemble.following_replica",  # imported where the model's actor is made, too
        "s3t_ray.runtime.rank",
        "s3t_ray.runtime.shard_owners",
        "s3t_ray.scheduler.scheduler",
    ],
)
def test_only_the_process_that_has_the_model_imports_torch(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
