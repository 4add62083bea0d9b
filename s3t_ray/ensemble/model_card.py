"""Writes the model card of an export: its sources, its contents, and the deletions before it.

In: an open run and the exported chains. Out: README.md in Hugging Face's format. It contains counts and stage ids, but
no records and no names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3t_ray.run.exports import MODEL_CARD
from s3t_ray.run.run import Run


def model_card(run: Run, chains: Mapping[int, Sequence[str]], merged: bool) -> str:
    """The text of the card. `chains`: the stage ids of each exported shard."""
    config = run.config
    records = {shard: sum(state.records for state in run.ledger.slices(shard)) for shard in chains}
    deletions = run.ledger.deletions()
    newest = f" `s3t certificate` prints the newest, {deletions[-1].receipt.request_id}." if deletions else ""
    lines = [
        "---",
        f"base_model: {json.dumps(str(config.model.path))}",
        "library_name: peft",
        "tags: [lora, s3t_ray]",
        *_licence(run.base),
        "---",
        "",
        f"# {run.row.name}: {'the mean of its shards' if merged else 'one of its shards'}",
        "",
        "A LoRA adapter of a run from which records can be deleted exactly. The scale is in `lora_alpha`: alpha / r, "
        "without rsLoRA.",
        "",
    ]
    if merged:
        lines += [
            "It concatenates the adapters of the shards, each divided by the number of shards. "
            + (
                "The service uses this single model too (`ensemble: mean`)."
                if config.ensemble == "mean"
                else "The service averages the outputs of the models instead, so its answers differ slightly."
            ),
            "",
        ]
    lines += [
        "| shard | records retained | layer groups | stages |",
        "|---|---|---|---|",
        *(
            f"| {shard} | {records[shard]} | {len(chain)} of {run.row.slices} | {', '.join(f'`{s}`' for s in chain)} |"
            for shard, chain in chains.items()
        ),
        "",
        f"- Base model: digest `{run.row.base_digest}`.",
        f"- LoRA: rank {config.lora.rank}, alpha {config.lora.alpha:g}{' (rsLoRA)' if config.lora.use_rslora else ''}.",
        f"- Deletions accepted before this export: {len(deletions)}.{newest}",
        "",
        "A later deletion may affect stages in this export. The run then erases this folder. Copies of the folder are "
        "outside the run, and whoever made them must replace them.",
        "",
    ]
    return "\n".join(lines)


def _licence(base: Path) -> list[str]:
    """The licence in the base model's card, which also covers adapters of it."""
    card = base / MODEL_CARD
    if not card.is_file():
        return []
    head = card.read_text(errors="replace").partition("\n---")[0]
    return [line for line in head.splitlines() if line.startswith("license:")][:1]
