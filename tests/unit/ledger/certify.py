"""Signing for tests, the way a scheduler does it."""

from __future__ import annotations

from s3t_ray.ledger.certificate import Certificate, OrderChoice, issue
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.ledger import Ledger

KEYS = Keys(bytes(range(32)))
PEM = KEYS.public_key_pem
OTHER = Keys(b"\x01" * 32)
ORDERS = OrderChoice(kind="cyclic", depends_on_history=False)
SOFTWARE = {"torch": "2.13.0", "s3t_ray": "0.1"}


def certify(ledger: Ledger, epoch: int, request_id: str, keys: Keys = KEYS) -> Certificate:
    """Take a purged deletion to restored."""
    certificate = issue(ledger.certificate_facts(request_id), keys, ORDERS, SOFTWARE)
    assert ledger.append_certificate(epoch, certificate)
    return certificate
