"""The model card of an export: what it was made from, what it is, and what was deleted before it was made.

In: an open run and the chains that are exported. Out: README.md in Hugging Face's format. Only counts and ids of
stages: no records and no names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3t_ray.run.exports import MODEL_CARD
from s3t_ray.run.run import Run


def model_card(run: Run, chains: Mapping[int, Sequence[str]], merged: bool) -> str:
    """Text of the card. `chains`: stage ids of each shard that is in the export."""
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
            "The shards' adapters stand side by side in it, each divided by their number. "
            + (
                "The service answers as this one model (`ensemble: mean`)."
                if config.ensemble == "mean"
                else "The service averages what whole models say instead, so its answers differ somewhat."
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
        "A later deletion may strike stages of this export. The run knows this folder and erases it then; copies of it "
        "are outside the run, and must be replaced by whoever made them.",
        "",
    ]
    return "\n".join(lines)


def _licence(base: Path) -> list[str]:
    """The licence that the base model's own card names, for an adapter of it falls under that."""
    card = base / MODEL_CARD
    if not card.is_file():
        return []
    head = card.read_text(errors="replace").partition("\n---")[0]
    return [line for line in head.splitlines() if line.startswith("license:")][:1]
