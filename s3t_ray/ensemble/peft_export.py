"""`s3t export`: the live model of one shard as a standard PEFT adapter folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from s3t_ray.errors import ConfigError
from s3t_ray.ledger.values import ExportedFolder
from s3t_ray.run.reports import Export
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "head.safetensors")


def export(run: Run, shard: int, out: Path) -> Export:
    """Write the deepest live model of `shard` to `out`; `PeftModel.from_pretrained` loads it.

    Raises ConfigError for a shard that the run has not or that is dead, and for a folder that is
    not empty: nothing is overwritten.
    """
    from s3t_ray.train.adapters import export_adapter  # torch: only when it is needed

    if not 0 <= shard < run.row.shards:
        raise ConfigError(f"shard {shard} is not in this run", f"give one of 0..{run.row.shards - 1}")
    folder = out.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder", "give a new folder")
    stages = view_shard(run, shard).serving
    if not stages:
        raise ConfigError(
            f"shard {shard} has no live stage: there is nothing to export",
            "wait until it is trained again (`s3t status` tells)",
        )
    run.ledger.exports.note(shard, ExportedFolder(str(folder), stages, ADAPTER_FILES))
    export_adapter(run.store, stages, folder)
    sha256 = hashlib.sha256((folder / ADAPTER_FILES[0]).read_bytes()).hexdigest()
    # A deletion may have struck between the reading of the live stages and here.
    if view_shard(run, shard).serving[: len(stages)] != stages:
        for name in ADAPTER_FILES:
            (folder / name).unlink(missing_ok=True)
        run.ledger.exports.forget(str(folder))
        raise ConfigError(f"shard {shard} lost stages to a deletion during the export", "export again")
    return Export(shard=shard, depth=len(stages), folder=str(folder), stages=stages, adapter_sha256=sha256)
