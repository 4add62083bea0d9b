"""Signing for tests, the way a scheduler does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from s3t_ray.ledger.certificate_chain import Circumstances
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.transaction import utc_now
from s3t_ray.proof.certificate import Certificate, OrderChoice

KEYS = Keys(bytes(range(32)))
PEM = KEYS.public_key_pem
OTHER = Keys(b"\x01" * 32)
ORDERS = OrderChoice(kind="cyclic", depends_on_history=False)
SOFTWARE = {"torch": "2.13.0", "s3t_ray": "0.1"}
CIRCUMSTANCES = Circumstances(ORDERS, SOFTWARE)


def opened(url: str, create: bool = False, clock: Callable[[], datetime] = utc_now) -> Ledger:
    """A ledger that asks for `KEYS`."""
    ledger = Ledger.open(url, create, clock)
    ledger.bind(lambda: KEYS)
    return ledger


def certify(ledger: Ledger, epoch: int, request_id: str) -> Certificate:
    """Take a purged deletion to restored."""
    return ledger.certify(epoch, request_id, CIRCUMSTANCES, final=True)
