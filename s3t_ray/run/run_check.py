"""What `s3t train` refuses about a run that was begun before, found before Ray is started.

In: a config. Out: the digest of its base, or the error that `Run.create` and `Run.check_recipe` would raise. Reads
no data. Must never begin a run.
"""

from __future__ import annotations

from s3t_ray.config.location import locate
from s3t_ray.config.schema import Config
from s3t_ray.ledger.values import NoLedger
from s3t_ray.run.integrity.run_identity import check_together, open_ledger, read_mark, require_whole
from s3t_ray.run.run import Run
from s3t_ray.store.store import Store


def check_begun_run(config: Config, *, drop_stages: bool = False) -> str | None:
    """Compare `config` with its run. Returns the digest of the base, or None if the run has not begun.

    Takes about one second per gigabyte of the base. Raises ConfigError, LedgerError or StoreError as `Run.create`
    would.
    """
    location = locate(config)
    store = Store.open(location.storage_uri)
    try:
        ledger = open_ledger(location, store, create=False)
    except NoLedger:
        if read_mark(store) is not None:
            raise
        return None  # a new run
    with ledger:
        check_together(store, ledger, config.name)
        require_whole(location, ledger, store)
        run = Run(config, location, store, ledger)
        run.check_continued()
        row = ledger.run()
        if row is None:
            return None
        run.check_recipe(row.base_digest)  # the fast checks first
        if not drop_stages:
            run.check_keeps_stages()
        _ = run.base  # raises ConfigError if it was replaced
        return run.base_digest
