"""The main job: data -> partition -> plan -> train -> publish, until the run is settled.

If run again, it trains only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from s3t_ray.config.base_files import check_tokenizer_files
from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import Config
from s3t_ray.config.tasks import TASKS
from s3t_ray.data.record_check import RecordCheck
from s3t_ray.errors import TrainError
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.reports import Status, TrainReport
from s3t_ray.run.run import Run, checked_base
from s3t_ray.run.run_check import check_begun_run
from s3t_ray.run.status import status
from s3t_ray.runtime.connect import check_fits_cluster, connected
from s3t_ray.runtime.driver import drive
from s3t_ray.runtime.gpu_card import check_a_card


def train(
    config: Config,
    *,
    address: str | None = None,
    watch: Callable[[Status], None] = lambda state: None,
    note: Callable[[str], None] = lambda line: None,
    drop_stages: bool = False,
    with_scheduler: Callable[[Any], None] = lambda actor: None,
) -> TrainReport:
    """Train the missing stages and complete pending deletions. Returns when the run is settled.

    `watch` is called about twice per second, `note` with single lines before training starts. `drop_stages`: allow
    trained stages to be purged if a smaller budget or another order does not need them. Raises ConfigError, DataError
    or ClusterError before anything starts, TrainError if the scheduler gave up on stages.
    """
    began = time.monotonic()
    folder = checked_base(config)
    note(f"base model: {folder}")
    if TASKS[config.task.kind].architecture != "vision":
        check_tokenizer_files(folder)
    # Imported here because torch and transformers take seconds to import, and file errors should appear first.
    from s3t_ray.train.loading.check_base import check_base_model

    tokenizer = check_base_model(config, folder)
    digest = check_begun_run(config, drop_stages=drop_stages)
    note("starting Ray")
    with connected(address) as grows:
        check_fits_cluster(config, grows)
        check_a_card(config, read_shape(folder), note)
        with Run.create(config, drop_stages=drop_stages) as run:
            if digest is not None:
                run.base_digest = digest  # hashing a large base takes minutes; every rank hashes it again
            run.check_recipe()
            ingest(run, note, RecordCheck(tokenizer, config.task))
            run.check_recipe()
            reused = len(run.wanted_stages())
            last = drive(
                run,
                detached=address is not None,
                watch=watch,
                until=lambda snapshot, state: snapshot.idle,
                with_scheduler=with_scheduler,
            )
            final = status(run)
    watch(final)
    if last.given_up:
        worst, more = last.given_up[0], len(last.given_up) - 1
        raise TrainError(
            f"given up after {worst.attempts} failed attempts: {worst.title}: {worst.error}"
            + (f" (and {more} more)" if more else ""),
            "fix the cause and repeat the command: it trains only what is missing",
        )
    return TrainReport(
        trained=last.trained, reused=reused, seconds=time.monotonic() - began, tokens=last.tokens, status=final
    )
