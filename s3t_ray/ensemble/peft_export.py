"""`s3t export`: writes the live model of one shard, or all shards merged, as a standard PEFT adapter folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from s3t_ray.ensemble.model_card import model_card
from s3t_ray.errors import ConfigError
from s3t_ray.ledger.values import ExportedFolder
from s3t_ray.run.exports import EXPORTED_FILES, MODEL_CARD
from s3t_ray.run.reports import Export
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard


def export(run: Run, shard: int | None, out: Path) -> Export:
    """Write the deepest live model of `shard` to `out`; None: the mean of all live shards as one adapter.

    `PeftModel.from_pretrained` can load it. Raises ConfigError if the shard does not exist or is dead, if shards with
    task heads are to be merged, if a deletion changes a shard during the export, or if the folder is not empty: nothing
    is overwritten.
    """
    from s3t_ray.train.adapters import export_adapter, export_merged_adapter  # torch: only when it is needed

    shards = tuple(range(run.row.shards)) if shard is None else (shard,)
    if not set(shards) <= set(range(run.row.shards)):
        raise ConfigError(f"shard {shard} is not in this run", f"choose one of 0..{run.row.shards - 1}")
    folder = out.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder", "choose a new folder")
    if shard is None and run.config.task.head_rows:
        raise ConfigError(
            "models with a task head cannot be merged, because heads cannot be averaged",
            "export one shard: --shard N",
        )
    chains = {each: view_shard(run, each).serving for each in shards}
    chains = {each: chain for each, chain in chains.items() if chain}
    if not chains:
        raise ConfigError(
            f"{'the run' if shard is None else f'shard {shard}'} has no live stage to export",
            "wait until it has been trained again (see `s3t status`)",
        )
    stages = tuple(name for chain in chains.values() for name in chain)
    run.ledger.exports.note(min(chains), ExportedFolder(str(folder), stages, EXPORTED_FILES))
    if shard is None:
        export_merged_adapter(run.store, tuple(chains.values()), folder, run.config.lora.isolation)
    else:
        export_adapter(run.store, stages, folder, run.config.lora.isolation)
    (folder / MODEL_CARD).write_text(model_card(run, chains, merged=shard is None))
    sha256 = hashlib.sha256((folder / EXPORTED_FILES[0]).read_bytes()).hexdigest()
    # A deletion may have pruned a stage since the live stages were read.
    if any(view_shard(run, each).serving[: len(chain)] != chain for each, chain in chains.items()):
        for name in EXPORTED_FILES:
            (folder / name).unlink(missing_ok=True)
        run.ledger.exports.forget(str(folder))
        who = "a shard" if shard is None else f"shard {shard}"
        raise ConfigError(f"{who} lost stages to a deletion during the export", "export again")
    depth = max(len(chain) for chain in chains.values())
    return Export(shard=shard, depth=depth, folder=str(folder), stages=stages, adapter_sha256=sha256)
