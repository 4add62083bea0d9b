"""Stages as a GPU computes them, bfloat16 with float32 adapters, on a CPU: every ZeRO stage, plain and fused norms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s3t_ray.store.published_stage import read_manifest
from s3t_ray.train.frozen_norm import FusedRmsNorm
from tests.e2e.train.lab import make_lab, train, train_chain


@pytest.mark.parametrize(
    "engine",
    [
        {"zero_stage": 0},
        {"zero_stage": 0, "norms": "fused", "gradient_checkpointing": True},
        {"zero_stage": 2, "hidden_states": "recompute"},
        {"zero_stage": 3, "norms": "fused"},
    ],
    ids=lambda engine: "-".join(map(str, engine.values())),
)
def test_a_chain_learns_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, object]) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")  # the GPU that the config asks for is a logical one
    lab = make_lab(
        tmp_path,
        engine={"precision": "bfloat16", "micro_batch_tokens": 128, **engine},
        optimizer={"epochs": 3},
        workers={"gpus_per_rank": 1},
    )
    trainer = lab.trainer()
    model = trainer._base.model
    fused = [module for module in model.modules() if isinstance(module, FusedRmsNorm)]
    assert len(fused) == (2 * model.config.num_hidden_layers + 1 if "norms" in engine else 0)
    names = train_chain(lab, trainer, "s", (0, 1))
    manifest = read_manifest(lab.store, names[0])
    assert manifest.losses[-1] < 0.9 * manifest.losses[0]
    assert all(value.dtype == torch.float32 for value in lab.tensors(names[1]).values())
    again = train(lab.trainer(), lab.job("again", (0, 1), names[:1]))
    assert again.adapter_sha256 == read_manifest(lab.store, names[1]).adapter_sha256
