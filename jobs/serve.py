"""Serve a run over HTTP as a Ray job, until the job is stopped. See docs/cluster.md for the endpoints.

    ray job submit --no-wait --working-dir jobs -- python serve.py s3://bucket/runs/alpaca --replicas 2

The nodes' environment must hold S3T_SERVE_TOKEN and S3T_DELETE_TOKEN. If it is stopped or killed,
nothing is lost: accepted deletions continue with the next service, training or `s3t delete`.
"""

from s3t_ray.cli.ray_job import run_as_job
from s3t_ray.cli.serve_command import serve

if __name__ == "__main__":
    run_as_job(serve)
