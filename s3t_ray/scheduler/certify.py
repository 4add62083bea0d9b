"""The certificate of a deletion: signed facts of the ledger, in one transaction with `restored`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from s3t_ray import __version__
from s3t_ray.ledger.certificate import OrderChoice, issue
from s3t_ray.run.run import Run

SOFTWARE = ("torch", "transformers", "peft", "deepspeed", "ray")
"""What decides weights, or who trains what: their versions stand in the certificate."""

_ATTEMPTS = 10


@cache
def software_versions() -> Mapping[str, str]:
    """Looked up once a process: it takes some 25 ms, more than all the rest of a certificate."""
    found = {name: version(name) for name in SOFTWARE}
    return found | {"s3t_ray": __version__, "python": platform.python_version()}


def certify(run: Run, epoch: int, request_id: str) -> bool:
    """Sign and append the certificate of a purged deletion; it is restored then.

    False: the ledger changed under every one of ten attempts; nothing is lost, try again.
    """
    order = run.config.order
    orders = OrderChoice(kind=order.kind, depends_on_history=order.depends_on_history)
    for _ in range(_ATTEMPTS):
        facts = run.ledger.certificate_facts(request_id)
        if run.ledger.append_certificate(epoch, issue(facts, run.keys, orders, software_versions())):
            return True
    return False
