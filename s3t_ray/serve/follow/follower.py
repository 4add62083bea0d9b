"""A small process that keeps an external server up to date with the run's live adapters. Deletions wait for it.

In: an open run, a target, a folder that the target reads. Out: each live shard's deepest adapter, exported and loaded
there under a name made from its stages; stale adapters unloaded and erased. In this order: unload, confirm to the
ledger, load. A deletion becomes `pruned` only when every follower has confirmed a position after it. The target is
asked each time what it has loaded, so that either side can be killed and restarted at any moment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from s3t_ray.ensemble.peft_export import export
from s3t_ray.errors import ConfigError
from s3t_ray.run.exports import EXPORTED_FILES
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.serve.fingerprint import fingerprint

Chain = tuple[str, ...]


class Target(Protocol):
    """A server that loads adapters. Methods raise S3TError if it is unreachable or refuses."""

    def loaded(self) -> frozenset[str]:
        """Names of all loaded adapters, including those of others."""
        ...

    def load(self, name: str, folder: Path) -> None: ...

    def unload(self, name: str) -> None:
        """Unload an adapter. Once this returns, it answers no new requests."""
        ...


class Follower:
    """Follows one target; not thread-safe."""

    def __init__(self, run: Run, name: str, target: Target, folder: Path) -> None:
        self._run = run
        self._name = name
        self._target = target
        self._folder = folder.absolute()
        self._prefix = f"s3t-{re.sub(r'[^A-Za-z0-9._-]', '-', run.row.name)}-shard"
        self._pattern = re.compile(re.escape(self._prefix) + r"\d+-[0-9a-f]{16}")
        self._folder.mkdir(parents=True, exist_ok=True)
        run.ledger.followers.begin(name)

    def look(self) -> tuple[str, ...]:
        """Update the target to the live set. Returns the names in service. Raises the target's errors; a failed unload
        is not confirmed."""
        position = self._run.ledger.followers.head()  # read before the live set, which is then at least this new
        wanted = self._wanted()
        self._let_go(wanted)
        self._run.ledger.followers.confirm(self._name, position)
        there = self._target.loaded()
        for name, (shard, chain) in wanted.items():
            if name not in there:
                self._load(name, shard, chain)
        return tuple(sorted(self._ours(self._target.loaded())))

    def close(self) -> None:
        """Unload all adapters of this run, erase the exports, and let deletions continue without this target."""
        self._let_go({})
        self._run.ledger.followers.end(self._name)

    def _wanted(self) -> dict[str, tuple[int, Chain]]:
        chains = {shard: view_shard(self._run, shard).serving for shard in range(self._run.row.shards)}
        return {self._name_of(shard, chain): (shard, chain) for shard, chain in chains.items() if chain}

    def _name_of(self, shard: int, chain: Chain) -> str:
        return f"{self._prefix}{shard}-{fingerprint(chain).removeprefix('s3t-')[:16]}"

    def _ours(self, names: frozenset[str]) -> frozenset[str]:
        return frozenset(name for name in names if self._pattern.fullmatch(name))

    def _let_go(self, wanted: Mapping[str, object]) -> None:
        for name in sorted(self._ours(self._target.loaded()) - wanted.keys()):
            self._target.unload(name)
        for left in sorted(self._folder.glob(f"{self._prefix}*")):
            if self._pattern.fullmatch(left.name) and left.name not in wanted:
                self._erase(left)

    def _load(self, name: str, shard: int, chain: Chain) -> None:
        folder = self._folder / name
        self._erase(folder)  # from an interrupted export
        try:
            exported = export(self._run, shard, folder)
        except ConfigError:
            return  # a deletion came first; the next call handles it
        if exported.stages == chain:
            self._target.load(name, folder)
        else:
            self._erase(folder)

    def _erase(self, folder: Path) -> None:
        for name in EXPORTED_FILES:
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()
        self._run.ledger.exports.forget(str(folder))
