"""The chunked cross-entropy against torch's own, and packed records against each record alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s3t_ray.config.schema import Config
from s3t_ray.train import loss as loss_module
from s3t_ray.train.examples import IGNORED, Item, make_item
from s3t_ray.train.forward import Forward, pack_items
from s3t_ray.train.loading.base import load_base
from s3t_ray.train.loss import summed_cross_entropy
from tests.tiny import tiny_llama

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("elements", [1, 3 * 50, 1 << 20])
def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch, bias: bool, elements: int) -> None:
    monkeypatch.setattr(loss_module, "_CHUNK_ELEMENTS", elements)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=bias)
    targets = torch.randint(0, 50, (7,))
    hidden = torch.randn(7, 16)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    got = summed_cross_entropy(ours, head, targets)
    wanted = torch.nn.functional.cross_entropy(head(theirs), targets, reduction="sum")
    (got * 0.3).backward()
    (wanted * 0.3).backward()
    assert torch.allclose(got, wanted, rtol=1e-6)
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"), layers=3)


def forward(base: Path, attention: str) -> Forward:
    config = Config(
        name="lab",
        shards=1,
        slices=1,
        budget=1,
        model={"path": str(base), "attention": attention},
        data={"path": "unused"},
        lora={"layers_per_group": 1},
        storage={"uri": "unused"},
    )
    return Forward(load_base(config, base, CPU), torch.float32)


def items() -> list[Item]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, length in enumerate((9, 1, 30, 4)):
        tokens = torch.randint(3, 300, (length + 1,), generator=generator).tolist()
        targets = [IGNORED if index % 3 == 1 else token for index, token in enumerate(tokens[1:])]
        made.append(make_item(str(number), 0, number, tokens[:-1], targets))
    return made


@pytest.mark.parametrize(("attention", "tolerance"), [("eager", 1e-6), ("sdpa", 1e-5)])
def test_packed_records_do_not_see_each_other(base: Path, attention: str, tolerance: float) -> None:
    model = forward(base, attention)
    alone = [float(model.loss(pack_items([item], None, CPU))) for item in items()]
    packed = float(model.loss(pack_items(items(), None, CPU)))
    assert packed == pytest.approx(sum(alone), rel=tolerance)
    with torch.no_grad():
        together = model.last_states(pack_items(items(), None, CPU))
        apart = torch.cat([model.last_states(pack_items([item], None, CPU)) for item in items()])
    assert torch.allclose(together, apart, atol=tolerance)


def test_the_loss_is_that_of_hugging_face(base: Path) -> None:
    """Also: positions without a label do not count."""
    model = forward(base, "sdpa")
    item = items()[2]
    labels = torch.tensor([[IGNORED, *item.targets]])
    tokens = torch.tensor([[*item.tokens, 5]])
    with torch.no_grad():
        theirs = model._base.model(input_ids=tokens, labels=labels).loss
    assert float(model.loss(pack_items([item], None, CPU))) / item.labelled == pytest.approx(float(theirs), rel=1e-5)


def test_an_empty_micro_batch_is_zero_but_runs_the_model(base: Path) -> None:
    model = forward(base, "sdpa")
    ran = []
    handle = model._base.model.model.layers[2].register_forward_hook(lambda *_: ran.append(True))
    from_tokens = model.loss(pack_items([], None, CPU))
    from_states = model.loss(pack_items([], torch.empty(0, 32), CPU))
    handle.remove()
    assert float(from_tokens) == float(from_states) == 0.0
    assert len(ran) == 2
