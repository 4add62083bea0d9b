"""Orders chosen for likely deletions train and heal, and certificates state what they are based on."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.proof.certificate import OrderChoice
from s3t_ray.run import deletion
from tests.fakes import Cluster, adapters, fake_base, small_config, write_records

RECORDS = [(f"r{number}", None) for number in range(24)]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"kind": "cyclic"}, OrderChoice(kind="cyclic", depends_on_history=False)),
        (
            {"kind": "greedy", "probabilities": [[5, 1, 1]], "depends_on_history": True},
            OrderChoice(kind="greedy", depends_on_history=True),
        ),
        ({"kind": "bms", "probabilities": [[5, 1, 1], [1, 1, 5]]}, OrderChoice(kind="bms", depends_on_history=False)),
    ],
)
def test_the_certificate_says_how_orders_were_chosen(
    tmp_path: Path, order: dict[str, object], said: OrderChoice
) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", RECORDS)
    cluster = Cluster(small_config(tmp_path, order=order))
    cluster.settle()
    trained = adapters(cluster.run)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    certificate = cluster.run.ledger.certificate(receipt.request_id)
    assert certificate is not None and certificate.orders == said
    assert set(adapters(cluster.run)) == set(trained), "healed: every place has its stage again"
