"""The scheduler's actor: a thin shell round `scheduler.loop.SchedulerLoop`, and how to start and find it."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from s3t_ray.config.load import dump_config
from s3t_ray.plan.fair_shares import Claim
from s3t_ray.run.run import Run
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.ray_host import RayHost, RayServingReplica
from s3t_ray.scheduler.loop import SchedulerLoop, Snapshot


class SchedulerActor:
    """The named actor of a run. `serve` runs the reconciler until `stop`; other calls answer meanwhile."""

    def __init__(self, run_uri: str, base: str) -> None:
        self._run = Run.open(run_uri)
        self._loop = SchedulerLoop(self._run, RayHost(self._run, base))

    def serve(self) -> None:
        """See `SchedulerLoop.serve`."""
        self._loop.serve()

    def snapshot(self) -> Snapshot:
        """What it does now; answers while a round is on its way."""
        return self._loop.snapshot

    def claim(self) -> Claim | None:
        """What this run claims of the cluster, for the schedulers of the others."""
        return self._loop.claim

    def serves(self, config_yaml: str) -> bool:
        """Whether this scheduler runs under exactly this config."""
        return dump_config(self._run.config) == config_yaml

    def attach_replica(self, name: str, replica: Any) -> None:
        """Have a serving replica follow the live set; it has it after the next round."""
        self._loop.attach(name, RayServingReplica(replica))

    def wake(self) -> None:
        """Begin the next round at once: the ledger has something new, such as a deletion.

        Only a hint: what is new is read from the ledger, which the scheduler looks at every TICK_SECONDS anyway.
        """
        self._loop.wake()

    def stop(self) -> None:
        """End `serve` after the round that is on its way."""
        self._loop.stop()


def start_scheduler(run: Run, detached: bool) -> tuple[Any, ray.ObjectRef]:
    """Start the run's scheduler actor: (handle, its end). ValueError: there is one of this run in the cluster."""
    name = actor_name("scheduler", run.location.storage_uri)
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "num_cpus": 0,
        "max_concurrency": 8,
        # It signs and resolves with the run's keys, which lie where it is started from; elsewhere only
        # when that node is gone, and then only where the keys folder is shared.
        "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
    }
    if detached:
        options["lifetime"] = "detached"
    # One call of `serve` at a time: a second one waits for the first, and so learns when it ends.
    actor_class = ray.remote(concurrency_groups={"serve": 1})(SchedulerActor)
    actor = actor_class.options(**options).remote(run.location.storage_uri, str(run.base))
    return actor, end_of(actor)


def end_of(actor: Any) -> ray.ObjectRef:
    """Resolves, or raises, when this scheduler ends. It begins here, if whoever made it died before that."""
    return actor.serve.options(concurrency_group="serve").remote()


def find_scheduler(run: Run) -> Any | None:
    """The run's scheduler actor in this cluster; None when there is none."""
    try:
        return ray.get_actor(actor_name("scheduler", run.location.storage_uri), namespace=NAMESPACE)
    except ValueError:
        return None
