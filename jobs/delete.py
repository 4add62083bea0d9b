"""Delete records, or all records of a person, as a Ray job: the receipt first, then the rest until the run is restored.

    ray job submit --working-dir jobs -- python delete.py s3://bucket/runs/alpaca --ids-file expired.txt

Once the receipt is printed, the deletion cannot be lost, whatever happens to the job. Submitting it again
gives the same receipt and continues. Ray's users can read a job's command line, so give ids and subjects in
a file (`--ids-file`) or over HTTP, not as options.
"""

from s3t_ray.cli.delete_command import delete
from s3t_ray.cli.ray_job import run_as_job

if __name__ == "__main__":
    run_as_job(delete)
