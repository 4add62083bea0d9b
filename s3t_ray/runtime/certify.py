"""The certificate of a deletion: signed facts of the ledger, in one transaction with `restored`."""

from __future__ import annotations

import platform
from importlib.metadata import version

from s3t_ray import __version__
from s3t_ray.errors import LedgerError
from s3t_ray.ledger.certificate import OrderChoice, issue
from s3t_ray.runtime.run import Run

SOFTWARE = ("torch", "transformers", "peft", "deepspeed", "ray")
"""What decides weights, or who trains what: their versions stand in the certificate."""

_ATTEMPTS = 10


def certify(run: Run, epoch: int, request_id: str) -> None:
    """Sign and append the certificate of a purged deletion; it is restored then.

    Raises LedgerError when the ledger changed under every one of ten attempts.
    """
    software = {name: version(name) for name in SOFTWARE}
    software |= {"s3t_ray": __version__, "python": platform.python_version()}
    # Every order so far follows from the config alone; one chosen from history must say so here.
    orders = OrderChoice(kind=run.config.order.kind, depends_on_history=False)
    for _ in range(_ATTEMPTS):
        facts = run.ledger.certificate_facts(request_id)
        if run.ledger.append_certificate(epoch, issue(facts, run.keys, orders, software)):
            return
    raise LedgerError(
        f"the certificate of deletion {request_id} could not be appended: "
        f"the ledger changed {_ATTEMPTS} times meanwhile",
        "nothing is lost; the scheduler tries again",
    )
