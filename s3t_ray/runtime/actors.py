"""The scheduler's actor: a thin wrapper around `scheduler.loop.SchedulerLoop`. Starts and finds it."""

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
    """The named actor of a run. `serve` runs the reconciler until `stop`; other calls are answered concurrently."""

    def __init__(self, run_uri: str, base: str) -> None:
        self._run = Run.open(run_uri)
        self._loop = SchedulerLoop(self._run, RayHost(self._run, base))

    def serve(self) -> None:
        """See `SchedulerLoop.serve`."""
        self._loop.serve()

    def snapshot(self) -> Snapshot:
        """The scheduler's current state. Answers even during a round."""
        return self._loop.snapshot

    def claim(self) -> Claim | None:
        """This run's claim on the cluster, for the schedulers of other runs."""
        return self._loop.claim

    def serves(self, config_yaml: str) -> bool:
        """Whether this scheduler uses exactly this config."""
        return dump_config(self._run.config) == config_yaml

    def attach_replica(self, name: str, replica: Any) -> None:
        """Make a serving replica follow the live set, from the next round on."""
        self._loop.attach(name, RayServingReplica(replica))

    def wake(self) -> None:
        """Start the next round immediately, because the ledger has changed, for example by a deletion.

        This is only a hint: the scheduler reads the ledger every TICK_SECONDS anyway.
        """
        self._loop.wake()

    def stop(self) -> None:
        """End `serve` after the current round."""
        self._loop.stop()


def start_scheduler(run: Run, detached: bool) -> tuple[Any, ray.ObjectRef]:
    """Start the run's scheduler actor. Returns (handle, reference that resolves when it ends).

    Raises ValueError if this run already has a scheduler in the cluster.
    """
    name = actor_name("scheduler", run.location.storage_uri)
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "num_cpus": 0,
        "max_concurrency": 8,
        # It needs the run's keys, which are on the node that starts it. It runs elsewhere only if that
        # node is gone, and then only if the key folder is shared.
        "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
    }
    if detached:
        options["lifetime"] = "detached"
    # Only one `serve` call runs at a time. A second call waits for the first, and so returns when that ends.
    actor_class = ray.remote(concurrency_groups={"serve": 1})(SchedulerActor)
    actor = actor_class.options(**options).remote(run.location.storage_uri, str(run.base))
    return actor, end_of(actor)


def end_of(actor: Any) -> ray.ObjectRef:
    """A reference that resolves, or raises, when this scheduler ends. Starts it if its creator died before doing so."""
    return actor.serve.options(concurrency_group="serve").remote()


def find_scheduler(run: Run) -> Any | None:
    """The run's scheduler actor in this cluster; None if there is none."""
    try:
        return ray.get_actor(actor_name("scheduler", run.location.storage_uri), namespace=NAMESPACE)
    except ValueError:
        return None
