"""Computes the logits of each chain of stages on a test set. Any ensemble of chains follows from them.

In: chains of published stages, records. Out: float32 [N x C] for each chain, and the labels. All chains of a pass
are rows of one batch, as in serving. Shapes: N records, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from s3t_ray.config.schema import Config
from s3t_ray.data.readers.inputs import Example, encode
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import load_stage
from s3t_ray.ensemble.row_lora import applied, install_hooks, plan_rows
from s3t_ray.store.store import Store
from s3t_ray.train.loading.base_reader import base_reader

Chain = tuple[str, ...]
CHAINS_A_PASS = 9
BATCH_TOKENS = 4096


def chain_outputs(
    config: Config, base: Path, contents: Sequence[str], chains: Sequence[Chain]
) -> tuple[dict[Chain, np.ndarray], np.ndarray]:
    """Outputs of every chain, in the order of `contents`, and the label of each record."""
    frozen = FrozenBase(config, base)
    install_hooks(frozen)
    store = Store.open(config.storage.uri)
    reader = base_reader(base, config.task)
    examples = [encode(content, reader, config.task) for content in contents]
    found: dict[Chain, np.ndarray] = {}
    for start in range(0, len(chains), CHAINS_A_PASS):
        own = chains[start : start + CHAINS_A_PASS]
        stages = {
            name: load_stage(store, chain[:depth], frozen) for chain in own for depth, name in enumerate(chain, 1)
        }
        layout = plan_rows(frozen, stages, own)
        rows = {chain: np.zeros((len(examples), config.task.head_rows), np.float32) for chain in own}
        with torch.inference_mode():
            for places in _alike(examples, len(own)):
                with applied(layout, len(places)):
                    first = frozen.hidden_of([examples[place] for place in places])[:, :, 0]
                for chain in own:
                    said = frozen.outputs(first[[layout.row(chain)]], [stages[chain[-1]].head])
                    rows[chain][places] = said.numpy()
        found |= rows
    return found, np.array([example.label for example in examples])


def _alike(examples: Sequence[Example], rows: int) -> Iterator[list[int]]:
    """Indexes of records of equal length, in batches that fit: needs no padding."""
    by_length: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        by_length.setdefault(len(example.input_ids), []).append(place)
    for length, alike in sorted(by_length.items()):
        size = max(1, BATCH_TOKENS // (length * rows))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))
