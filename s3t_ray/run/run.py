"""An open run: its config, store, ledger and keys in one place, and the plan that follows from them.

In: the run's folder or URI (or a config to start one). Out: handles that every command and actor uses. Never imports
torch or Ray, because `s3t status` must start fast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType

from s3t_ray.config.base_model import check_base, digest_base, find_base
from s3t_ray.config.load import dump_config
from s3t_ray.config.location import CONFIG_FILE, RunLocation, check_outlives_job, locate
from s3t_ray.config.memory_folders import check_keys_last
from s3t_ray.config.recipe import recipe
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError, LedgerError, S3TError
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import RunRow, SliceState, StageState
from s3t_ray.plan.identity import recipe_digest
from s3t_ray.plan.orders import orders
from s3t_ray.plan.stages import HOLDOUT_SHARD, ShardPlan, plan_shard
from s3t_ray.run.input.input_summary import InputSummary, read_summary
from s3t_ray.run.integrity.log_copy import LogCopy
from s3t_ray.run.integrity.run_identity import begin, check_together, open_ledger, remember, require_whole
from s3t_ray.run.stored_config import stored_config
from s3t_ray.store import layout
from s3t_ray.store.store import Store

SHORTEST_REQUEST = 6
"""Minimum length of a prefix that can identify a deletion."""


def checked_base(config: Config) -> Path:
    """Folder of the base model of `config`, after checking that its files are complete and its sizes fit the config.

    Creates nothing and does not need torch; `train.check_base` also checks the name of every weight. ConfigError.
    """
    folder = find_base(config.model)
    check_base(config, folder)
    return folder


class Run:
    """Config, store and ledger of one run. Close it, or use it as a context manager."""

    def __init__(
        self,
        config: Config,
        location: RunLocation,
        store: Store,
        ledger: Ledger,
        read_only: bool = False,
        lent_keys: Keys | None = None,
    ) -> None:
        """`lent_keys`: see `open`. They seal the results of a replay, and match nothing in the run."""
        self.config = config
        self.read_only = read_only
        self.location = location
        self.store = store
        self.ledger = ledger
        self._lent_keys = lent_keys
        if lent_keys is None:
            ledger.bind(lambda: self.keys)

    @classmethod
    def open(cls, uri: str | Path, read_only: bool = False, lent_keys: Keys | None = None) -> Run:
        """The existing run at `uri` (its storage root, or a config file that names it).

        `read_only`: for readers, also of a run that may have been reset or replaced. `lent_keys`: for an auditor
        without the run's own keys; then nothing is modified, and the ledger is read from a copy elsewhere.
        ConfigError: there is no run. LedgerError: storage and ledger are not of the same run, or not the newest known.
        """
        run = cls.open_unchecked(uri, read_only, lent_keys)
        if not run.read_only:
            try:
                require_whole(run.location, run.ledger, run.store)
            except S3TError:
                run.close()
                raise
        return run

    @classmethod
    def open_to_look(cls, uri: str | Path) -> Run:
        """`open` for reading once: on unwritable storage, it uses a copy of the ledger if necessary."""
        try:
            return cls.open(uri)
        except LedgerError:
            run = cls.open_unchecked(uri, read_only=True)
        try:
            require_whole(run.location, run.ledger, run.store)
        except S3TError:
            run.close()
            raise
        return run

    @classmethod
    def open_unchecked(cls, uri: str | Path, read_only: bool = False, lent_keys: Keys | None = None) -> Run:
        """The same, without checking that the run is the newest, for `s3t restore`. A reset run has deleted records."""
        store, config = stored_config(uri)
        location = locate(config)
        read_only = read_only or lent_keys is not None
        if lent_keys is not None:
            ledger = Ledger.open_copy(location.ledger_url)
        else:
            ledger = Ledger.open(location.ledger_url, read_only=read_only)
        try:
            check_together(store, ledger, config.name)
        except S3TError:
            ledger.close()
            raise
        return cls(config, location, store, ledger, read_only, lent_keys)

    @classmethod
    def create(cls, config: Config, *, drop_stages: bool = False) -> Run:
        """Open the run of `config`, or start it: publish its config and create its ledger and keys.

        Settings that do not affect weights (budget, workers, policy, ...) may differ from the last time and are
        published again. `check_recipe` refuses a different recipe. A smaller budget or another order that would purge
        trained stages is refused too, unless `drop_stages` is set.
        """
        location = locate(config)
        check_outlives_job(location)
        checked_base(config)
        store = Store.open(location.storage_uri)
        ledger = open_ledger(location, store, create=True)
        try:
            check_together(store, ledger, config.name)
            require_whole(location, ledger, store)
            cls(config, location, store, ledger).check_continued()
            begin(store, ledger, config.name)
        except S3TError:
            ledger.close()
            raise
        text = dump_config(config).encode()
        if not store.exists(CONFIG_FILE) or store.read_bytes(CONFIG_FILE) != text:
            run = cls(config, location, store, ledger)
            run.check_recipe()
            if not drop_stages:
                run.check_keeps_stages()
            store.write_bytes(CONFIG_FILE, text)
        run = cls(config, location, store, ledger)
        run.seal()
        return run

    def seal(self) -> None:
        """Seal the rows of a run that an older version started; its log records since when.

        Erases its stored hidden states first, because they have no seal and training would not read them.
        """
        if self.ledger.run() is not None and not self.ledger.is_sealed():
            self.ledger.require_key(self.keys.public_key)  # both checks come before anything is erased
            self.ledger.require_never_sealed()
            for path in self.store.files(layout.HIDDEN):
                self.store.delete(path)
            self.ledger.seal()

    def remember(self) -> None:
        """Record the length of the run's log beside the keys, and update the log's copy."""
        remember(self.location.keys_dir, self.ledger.run_id, self.location.storage_uri, self.ledger.log_head())
        if self.log_copy is not None:
            with suppress(OSError):  # the next entry copies this one too, and an audit reports it
                self.log_copy.catch_up(self.ledger)

    @property
    def log_copy(self) -> LogCopy | None:
        """The copy of the log outside the run; None if the config does not ask for one."""
        return LogCopy.of(self.location.log_copy, self.ledger.run_id)

    def close(self) -> None:
        self.ledger.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def base(self) -> Path:
        """Folder of this run's base model (downloaded if the config names a hub model).

        ConfigError: it was replaced, even by another of the same shape (reads every byte of it once).
        """
        row = self.ledger.run()
        if row is not None and self.base_digest != row.base_digest:
            raise ConfigError(
                f"the base model at {self.base_folder} is not the one that run {row.name!r} was trained on "
                f"(its digest is {self.base_digest[:16]}..., the run's {row.base_digest[:16]}...)",
                "restore the original weights, config.json and tokenizer files, or start a new run on this base",
            )
        return self.base_folder

    @cached_property
    def base_folder(self) -> Path:
        """Folder of the base model, complete and with the configured sizes; it may have been replaced."""
        return checked_base(self.config)

    @cached_property
    def base_digest(self) -> str:
        """Digest of the current base model. Takes about one second per gigabyte, once."""
        return digest_base(self.base_folder)

    @cached_property
    def input_summary(self) -> InputSummary | None:
        """Summary of the data at ingest. None: an earlier version ingested it."""
        return read_summary(self.store)

    @cached_property
    def keys(self) -> Keys:
        """Secret keys of the run; created with its first records, then only loaded. The ledger asks for them itself.

        ConfigError: they would be created in memory. LedgerError: they are lost, damaged, readable by others, or
        another run's.
        """
        if self._lent_keys is not None:
            return self._lent_keys
        if self.ledger.run() is None:
            if not Keys.exist(self.location.keys_dir):
                check_keys_last(self.location.keys_dir, self.location.storage_uri)
            keys = Keys.load_or_create(self.location.keys_dir)
        else:
            keys = Keys.load(self.location.keys_dir, self.ledger.signing_key())
            self.ledger.check_key(keys.key_check)
            if not self.read_only:
                keys.settle(self.location.keys_dir)
        self.ledger.require_key(keys.public_key)
        return keys

    @cached_property
    def row(self) -> RunRow:
        """The run's row in the ledger. ConfigError: its data is not ingested yet."""
        row = self.ledger.run()
        if row is None:
            raise ConfigError(
                f"run {self.config.name!r} at {self.location.storage_uri} has no records yet: "
                "reading its data did not end",
                "run `s3t train` with its config again",
            )
        return row

    def describe(self) -> RunRow:
        """The row that this config and this base model require (reads every byte of the base)."""
        settings = recipe(self.config, self.base_digest)
        return RunRow(
            name=self.config.name,
            recipe_digest=recipe_digest(settings),
            recipe_json=json.dumps(settings, sort_keys=True),
            base_digest=str(settings["base_digest"]),
            shards=self.config.shards,
            slices=self.config.slices,
            key_check=self.keys.key_check,
        )

    def check_continued(self) -> None:
        """Raise where the config gives a run that has its records another name (ConfigError) or keys (LedgerError)."""
        have = self.ledger.run()
        if have is None:
            return
        if have.name != self.config.name:
            raise ConfigError(
                f"the run at {self.location.storage_uri} is named {have.name!r}, which its certificates say, and the "
                f"config names it {self.config.name!r}; nothing was changed",
                f"set name: {have.name}, or give the new run its own storage.uri",
            )
        self.keys  # noqa: B018  # those that the run was begun with

    def check_recipe(self, base_digest: str | None = None) -> None:
        """Raise ConfigError, naming each field, when the config would train other weights than this run's.

        `base_digest`: taken for the base's, which is then not read.
        """
        have = self.ledger.run()
        if have is None:
            return
        settings = recipe(self.config, base_digest or self.base_digest)
        if recipe_digest(settings) == have.recipe_digest:
            return
        before = json.loads(have.recipe_json)
        changed = [
            f"{field}: {before.get(field)!r} -> {settings.get(field)!r}"
            for field in sorted(before.keys() | settings.keys())
            if json.dumps(before.get(field), sort_keys=True) != json.dumps(settings.get(field), sort_keys=True)
        ]
        undo = "undo the change"
        if before.get("format") != settings["format"]:  # docs/releasing.md
            undo = "use the version of s3t_ray that trains its format"
        raise ConfigError(
            f"run {have.name!r} at {self.location.storage_uri} was started with another recipe; changed: "
            + "; ".join(changed),
            f"{undo}, or give the new recipe its own storage.uri",
        )

    def wanted_stages(self) -> frozenset[str]:
        """Ids of the live stages that are in this config's plan."""
        if self.ledger.run() is None:
            return frozenset()
        return frozenset(
            name
            for shard in range(self.row.shards)
            for name in self.live_stages(shard) & self.plan(shard).stages.keys()
        )

    def check_keeps_stages(self) -> None:
        """ConfigError if trained stages are not in this config's plan, because they would be purged."""
        have = self.ledger.run()
        if have is None or (have.shards, have.slices) != (self.config.shards, self.config.slices):
            return
        live = sum(len(self.live_stages(shard)) for shard in range(have.shards))
        lost = live - len(self.wanted_stages())
        if lost:
            raise ConfigError(
                f"with budget {self.config.budget} and order.kind {self.config.order.kind}, {lost} of {live} trained "
                f"stages of run {have.name!r} would no longer be used, and would be purged",
                "undo the change to budget or order, or run `s3t train --drop-stages` to delete them",
            )

    def request_named(self, name: str) -> str:
        """The id of the deletion that starts with `name`; `s3t status` shows the first 12 of 16 characters.

        Returns `name` itself if no deletion, or several, start with it.
        """
        found = self.ledger.requests_named(name) if len(name) >= SHORTEST_REQUEST else ()
        return found[0] if len(found) == 1 else name

    def orders(self, shard: int) -> tuple[tuple[int, ...], ...]:
        return () if shard == HOLDOUT_SHARD else orders(self.config, shard)

    def plan(self, shard: int, slices: tuple[SliceState, ...] | None = None) -> ShardPlan:
        """What `shard` needs now: its orders applied to the slice digests in the ledger."""
        states = self.ledger.slices(shard) if slices is None else slices
        digests: Mapping[int, str] = {state.slice: state.digest for state in states if state.shard == shard}
        return plan_shard(shard, self.orders(shard), digests, self.row.recipe_digest)

    def live_stages(self, shard: int) -> frozenset[str]:
        """Ids of the shard's stages that the ledger has accepted and no deletion has hit."""
        return frozenset(row.id for row in self.ledger.stages(shard, StageState.LIVE))
