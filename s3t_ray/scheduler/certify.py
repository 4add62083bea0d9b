"""Issues certificates of deletions: signed facts from the ledger, added to the run's log.

A deletion gets an interim certificate once its bytes are gone, and the final one in the transaction that sets
`restored`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from s3t_ray import __version__
from s3t_ray.errors import StoreError, TrainError
from s3t_ray.ledger.certificate_chain import Circumstances
from s3t_ray.ledger.values import StageState
from s3t_ray.proof.certificate import Certificate, OrderChoice
from s3t_ray.run.integrity.seal_keys import is_announced
from s3t_ray.run.run import Run
from s3t_ray.store.published_stage import read_manifest

SOFTWARE = ("torch", "transformers", "peft", "deepspeed", "ray")
"""Packages that affect weights or scheduling; certificates list their versions."""


@cache
def software_versions() -> Mapping[str, str]:
    """Version by package. Cached per process: the lookup takes about 25 ms, more than the rest of a certificate."""
    found = {name: version(name) for name in SOFTWARE}
    return found | {"s3t_ray": __version__, "python": platform.python_version()}


def certify(run: Run, epoch: int, request_id: str, *, final: bool) -> Certificate:
    """Sign a purged deletion's certificate and add it to the log. The final one moves the deletion to `restored`.

    VerificationFailed: an erased adapter is live again without a seal by a worker of this run.
    """
    order = run.config.order
    orders = OrderChoice(kind=order.kind, depends_on_history=order.depends_on_history)
    anew = [name for name in run.ledger.same_adapter(request_id) if _is_sealed(run, name)]
    made = run.ledger.certify(epoch, request_id, Circumstances(orders, software_versions(), anew), final=final)
    run.remember()
    return made


def certify_interim(run: Run, epoch: int) -> None:
    """Give every purged deletion its interim certificate. It does not wait for training."""
    for request_id in run.ledger.without_interim():
        if not unannounced(run, request_id):
            certify(run, epoch, request_id, final=False)


def unannounced(run: Run, request_id: str) -> dict[int, tuple[str, ...]]:
    """Live stages, by shard, whose adapter this deletion erased and no worker of this run has sealed since.

    A worker's seal on the same bytes means that the deleted records had no effect on training.
    """
    same = run.ledger.same_adapter(request_id)
    wrong = {name for name in same if not _is_sealed(run, name)}
    if not wrong:
        return {}
    found: dict[int, list[str]] = {}
    for row in run.ledger.stages(state=StageState.LIVE):
        if row.id in wrong:
            found.setdefault(row.shard, []).append(row.id)
    return {shard: tuple(names) for shard, names in found.items()}


def _is_sealed(run: Run, stage_id: str) -> bool:
    try:
        return is_announced(run, read_manifest(run.store, stage_id))
    except (StoreError, TrainError):
        return False
