"""Train a run as a Ray job, until nothing is missing. Submitted again, it goes on where it stopped.

    ray job submit --working-dir jobs -- python train.py my.yaml --set budget=4

The job sees the folder `jobs` and what is in it: copy the config there, or name one on a disk that all nodes share.
`storage.uri` must be an absolute path on a disk that all nodes share, or s3:// or gs://. The
scheduler lives and ends with the job.
"""

from s3t_ray.cli.ray_job import run_as_job
from s3t_ray.cli.train_command import train

if __name__ == "__main__":
    run_as_job(train)
