"""How a run is served: the arguments of the Serve application. Importable without Ray."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt


class ServiceSettings(BaseModel):
    """Arguments of the application: those of `jobs/serve.py`, or `args` in a Serve config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    """Storage URI of the run."""
    replicas: PositiveInt = 1
    """Copies of the model."""
    cpus: PositiveInt = 1
    """CPU cores, and threads, of a copy."""
    gpus: NonNegativeFloat | None = None
    """GPUs of a copy; None: one if the run trains on GPUs, else none."""
    schedule: bool = True
    """Keep a scheduler for the run, which carries deletions to their end. False: another one does."""
    keys_resource: str | None = None
    """A custom resource of Ray that the nodes with the run's keys declare: the HTTP side and the scheduler run there.
    None: every node has the keys."""
