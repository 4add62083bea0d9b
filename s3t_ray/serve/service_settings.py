"""Arguments of the Serve application. Importable without Ray."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt


class ServiceSettings(BaseModel):
    """Arguments of the application: those of `jobs/serve.py`, or `args` in a Serve config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    """Storage URI of the run."""
    replicas: PositiveInt = 1
    """Number of copies of the model."""
    cpus: PositiveInt = 1
    """CPU cores and threads per copy."""
    gpus: NonNegativeFloat | None = None
    """GPUs per copy; None: one if the run trains on GPUs, else none."""
    schedule: bool = True
    """Keep a scheduler running that completes deletions. False: another one does."""
    keys_resource: str | None = None
    """Custom Ray resource of the nodes that have the run's keys, where the HTTP processes and the scheduler run. None:
    every node has the keys."""
