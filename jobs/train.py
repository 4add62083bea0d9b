"""Train a run as a Ray job, until nothing is missing. Submitted again, it resumes where it stopped.

    ray job submit --working-dir jobs -- python train.py my.yaml --set budget=4

The job sees only the folder `jobs`: copy the config there, or name one on a disk that all nodes share.
`storage.uri` must be an absolute path on a disk that all nodes share, or s3:// or gs://. The
scheduler ends with the job.
"""

from s3t_ray.cli.ray_job import run_as_job
from s3t_ray.cli.train_command import train

if __name__ == "__main__":
    run_as_job(train)
