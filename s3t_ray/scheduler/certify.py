"""Certificates of a deletion: signed facts of the ledger, entered in the run's log.

The interim one once its bytes are gone, the final one in one transaction with `restored`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from s3t_ray import __version__
from s3t_ray.ledger.certificate_chain import Circumstances
from s3t_ray.proof.certificate import Certificate, OrderChoice
from s3t_ray.run.run import Run

SOFTWARE = ("torch", "transformers", "peft", "deepspeed", "ray")
"""What decides weights, or who trains what: their versions stand in the certificate."""


@cache
def software_versions() -> Mapping[str, str]:
    """Looked up once a process: it takes some 25 ms, more than all the rest of a certificate."""
    found = {name: version(name) for name in SOFTWARE}
    return found | {"s3t_ray": __version__, "python": platform.python_version()}


def certify(run: Run, epoch: int, request_id: str, *, final: bool) -> Certificate:
    """Sign a purged deletion's certificate and enter it in the log; the final one moves it to `restored`.

    VerificationFailed: an erased adapter is live again, and no worker of this run sealed it.
    """
    run.keys  # noqa: B018  # bound to the ledger, which signs
    order = run.config.order
    orders = OrderChoice(kind=order.kind, depends_on_history=order.depends_on_history)
    same = run.ledger.same_adapter(request_id)
    circumstances = Circumstances(orders, software_versions(), same)
    certificate = run.ledger.certify(epoch, request_id, circumstances, final=final)
    return certificate
