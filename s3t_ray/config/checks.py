"""Checks that span several config fields, so that an impossible run is refused before it starts.

In: a section or the complete config, in which each field is valid by itself. Out: nothing, or a refusal
(a ValueError) that names the field, the value and the fix. Never accesses the disk, the network or the
clock.
"""

from __future__ import annotations

import re
from math import comb, factorial
from typing import TYPE_CHECKING

from s3t_ray.config.refuse import refusal
from s3t_ray.config.tasks import TASKS

if TYPE_CHECKING:
    from s3t_ray.config.schema import Config, Data

MOST_SLICES_IN_A_TABLE = 16
"""The largest L for order kinds that examine all 2^L subsets of a shard's slices."""

_SCHEMES = ("file", "s3", "gs")
_PASSWORD = re.compile(r"://[^/@:]*:([^@]+)@|[?&]password=([^&]+)")
_FROM_ENVIRONMENT = re.compile(r"(\$\{\w+\})+")


def is_remote(uri: str) -> bool:
    """Whether a storage URI is on another machine (a plain path and file:// are not)."""
    return "://" in uri and not uri.startswith("file://")


def check_data(data: Data) -> None:
    """Check how data is partitioned and held out. Raises a refusal."""
    if data.partition_by == "subject" and data.subject_field is None:
        raise refusal(
            "data.partition_by",
            "subject",
            "data.subject_field names no field",
            "name the field in data.subject_field, or use partition_by: record",
        )
    told = [name for name in ("holdout", "holdout_path", "holdout_split") if getattr(data, name)]
    if len(told) > 1:
        raise refusal(
            f"data.{told[0]}",
            getattr(data, told[0]),
            f"data.{told[1]} is also given",
            "keep one of holdout, holdout_path and holdout_split",
        )
    if data.subject_field is not None and data.subject_field == ("id" if data.id_field == "auto" else data.id_field):
        raise refusal(
            "data.subject_field",
            data.subject_field,
            "data.id_field is the same field",
            "remove subject_field: a record's own id needs no subject",
        )


def check_orders(config: Config) -> None:
    """Check `budget` and `order` against the number of slices. Raises a refusal."""
    slices, budget, order = config.slices, config.budget, config.order
    if budget > factorial(slices):
        raise refusal(
            "budget",
            budget,
            f"{slices} slices have only {factorial(slices)} orders",
            f"set budget to 1..{factorial(slices)}",
        )
    chains = comb(slices, slices // 2)
    if order.kind == "chains" and budget > chains:
        raise refusal(
            "budget",
            budget,
            f"{chains} chains of {slices} slices already keep the greatest possible depth",
            f"set budget to 1..{chains}, or order.kind to random",
        )
    _check_probabilities(config)
    if order.kind != "explicit":
        if order.sequences:
            raise refusal(
                "order.sequences",
                f"{len(order.sequences)} orders",
                f"order.kind is {order.kind}",
                "remove order.sequences, or set order.kind: explicit",
            )
        return
    if len(order.sequences) != budget:
        raise refusal(
            "order.sequences",
            f"{len(order.sequences)} orders",
            f"budget is {budget}",
            f"list exactly {budget}, or set budget to {max(1, len(order.sequences))}",
        )
    whole = list(range(slices))
    for sequence in order.sequences:
        if sorted(sequence) != whole:
            raise refusal(
                "order.sequences",
                list(sequence),
                f"it is not a permutation of {whole}",
                "list each slice once in each order",
            )
    if len(set(order.sequences)) != budget:
        raise refusal(
            "order.sequences", "an order twice", "the second would train nothing new", "make each order different"
        )


def _check_probabilities(config: Config) -> None:
    slices, order = config.slices, config.order
    takes_them = order.kind in ("greedy", "bms")
    if takes_them and slices > MOST_SLICES_IN_A_TABLE:
        raise refusal(
            "order.kind",
            order.kind,
            f"it considers all subsets of a shard's slices, and {slices} slices have too many",
            f"set slices to at most {MOST_SLICES_IN_A_TABLE}, or order.kind to cyclic or random",
        )
    rows = order.probabilities
    if rows and not takes_them:
        raise refusal(
            "order.probabilities",
            f"{len(rows)} rows",
            f"order.kind {order.kind} does not use them",
            "remove order.probabilities, or set order.kind to greedy or bms",
        )
    if rows and len(rows) not in (1, config.shards):
        raise refusal(
            "order.probabilities",
            f"{len(rows)} rows",
            f"there are {config.shards} shards",
            f"give 1 row for all shards, or {config.shards}",
        )
    for row in rows:
        if len(row) != slices or sum(row) <= 0:
            raise refusal(
                "order.probabilities",
                list(row),
                f"it is not {slices} numbers with a sum above 0",
                "give one number per slice; only their proportions matter",
            )
    if order.depends_on_history and not rows and order.kind != "explicit":
        raise refusal(
            "order.depends_on_history",
            "true",
            f"order.kind {order.kind} without probabilities depends only on the seed",
            "set it to false, or give order.probabilities or order.sequences",
        )


def check_workers(config: Config) -> None:
    """Check the workers and GPUs per rank against the engine. Raises a refusal."""
    workers, ranks = config.workers, config.engine.ranks
    if workers.gpus_per_rank > 1:
        raise refusal(
            "workers.gpus_per_rank",
            workers.gpus_per_rank,
            "a rank computes on one GPU and the others would be idle",
            f"set it to 1 and engine.ranks to {ranks * workers.gpus_per_rank}, or only to 1 for more worker groups",
        )
    gpus = ranks * workers.gpus_per_rank
    if workers.autoscale_to is not None and workers.groups != "auto":
        raise refusal(
            "workers.autoscale_to",
            workers.autoscale_to,
            f"workers.groups is {workers.groups}, which is a fixed number",
            "set workers.groups to auto, or remove workers.autoscale_to",
        )
    if not gpus and (workers.max_gpus is not None or workers.accelerator is not None):
        name = "max_gpus" if workers.max_gpus is not None else "accelerator"
        raise refusal(
            f"workers.{name}",
            getattr(workers, name),
            "workers.gpus_per_rank is 0",
            f"set workers.gpus_per_rank, or remove workers.{name}",
        )
    if workers.max_gpus is None:
        return
    groups = 1 if workers.groups == "auto" else workers.groups
    if groups * gpus > workers.max_gpus:
        raise refusal(
            "workers.max_gpus",
            workers.max_gpus,
            f"{groups} x engine.ranks x workers.gpus_per_rank is {groups * gpus} GPUs",
            f"set it to at least {groups * gpus}, or lower workers.groups or engine.ranks",
        )


def check_engine(config: Config) -> None:
    """Check the engine against the task, the model and the workers. Raises a refusal."""
    on_cpu = config.workers.gpus_per_rank == 0
    if config.ensemble == "mean" and TASKS[config.task.kind].head != "none":
        raise refusal(
            "ensemble",
            config.ensemble,
            f"task.kind is {config.task.kind}, and averaging task heads is not the same as averaging their outputs",
            "set ensemble to logits",
        )
    if config.model.quantize != "none" and TASKS[config.task.kind].head != "none":
        raise refusal(
            "model.quantize",
            config.model.quantize,
            f"task.kind is {config.task.kind}, whose task head is fully trained and must not be quantized",
            "set model.quantize to none",
        )
    if config.model.quantize != "none" and config.engine.zero_stage == 3:
        raise refusal(
            "model.quantize",
            config.model.quantize,
            "ZeRO 3 cannot partition quantized weights over ranks",
            "set engine.zero_stage to 0, 1 or 2, or model.quantize to none",
        )
    if config.engine.precision == "bfloat16" and on_cpu:
        raise refusal(
            "engine.precision",
            "bfloat16",
            "on CPU it is about 15 times slower than float32 and workers.gpus_per_rank is 0",
            "set engine.precision to float32, or workers.gpus_per_rank to 1",
        )
    attention = config.model.attention
    if attention.startswith("flash") and (on_cpu or config.engine.precision != "bfloat16"):
        raise refusal(
            "model.attention",
            attention,
            "it runs only on GPUs in bfloat16",
            "set workers.gpus_per_rank to 1 and engine.precision to bfloat16, or model.attention to sdpa",
        )
    judges = TASKS[config.task.kind].architecture != "decoder"
    images = TASKS[config.task.kind].architecture == "vision"
    if attention == "flash_varlen" and judges and not images and config.engine.hidden_states == "recompute":
        raise refusal(
            "model.attention",
            attention,
            f"a {config.task.kind} model that recomputes hidden states reads padded batches",
            "set model.attention to sdpa, or engine.hidden_states to store",
        )
    if config.engine.norms == "fused" and (on_cpu or judges):
        raise refusal(
            "engine.norms",
            "fused",
            "on a CPU each norm is already one operation" if on_cpu else "only text models have RMSNorms",
            "set engine.norms to eager",
        )
    shape = config.model.shape
    if not images and shape is not None and shape.positions is not None and config.task.max_tokens > shape.positions:
        raise refusal(
            "task.max_tokens",
            config.task.max_tokens,
            f"the model takes at most {shape.positions} tokens",
            f"set task.max_tokens to {shape.positions} or less",
        )


def check_boundaries(config: Config) -> None:
    """Check `engine.stored_boundaries` against the hidden-state setting. Raises a refusal."""
    wanted = config.engine.stored_boundaries
    if wanted == "all":
        return
    shown = wanted if isinstance(wanted, str) else list(wanted)
    if config.engine.hidden_states == "recompute":
        raise refusal(
            "engine.stored_boundaries",
            shown,
            "engine.hidden_states is recompute, which stores no states",
            "remove it, or set engine.hidden_states to store",
        )
    if config.engine.zero_stage == 3:
        raise refusal(
            "engine.stored_boundaries",
            shown,
            "with engine.zero_stage 3 all ranks gather each layer together, so one rank cannot compute states alone",
            "set engine.stored_boundaries to all, or engine.zero_stage to 0, 1 or 2",
        )
    if isinstance(wanted, tuple) and (len(set(wanted)) < len(wanted) or max(wanted, default=0) > config.slices):
        raise refusal(
            "engine.stored_boundaries",
            shown,
            f"it is not a list of different depths from 1 to {config.slices}",
            f"list each depth once, up to {config.slices} (slices), or use all or auto",
        )
    if isinstance(wanted, tuple) and config.lora.isolation == "none" and not set(wanted) <= {config.slices}:
        raise refusal(
            "engine.stored_boundaries",
            shown,
            "with lora.isolation none all stages train the same layers, so there is only one boundary",
            f"use all, auto or [{config.slices}]",
        )


def check_places(config: Config) -> None:
    """Check where the run stores files, ledger and keys. Raises a refusal."""
    uri, url = config.storage.uri, config.ledger.url
    if "://" in uri and uri.split("://", 1)[0] not in _SCHEMES:
        raise refusal("storage.uri", uri, "this kind of storage is not supported", "give a path, s3://... or gs://...")
    if is_remote(uri) and url is None:
        raise refusal(
            "ledger.url",
            "null",
            f"storage.uri is remote ({uri}) and SQLite needs a local folder",
            "name a PostgreSQL server: postgresql+psycopg://user:${LEDGER_PASSWORD}@host/database",
        )
    if is_remote(uri) and config.keys.dir is None:
        raise refusal(
            "keys.dir",
            "null",
            f"storage.uri is remote ({uri}), and the keys must not be in it",
            "name a folder on the head node that only this user can read",
        )
    if url is not None:
        _check_ledger_url(url)


def _check_ledger_url(url: str) -> None:
    """Check `ledger.url`. Its value is never shown because it may contain a password."""
    if not url.startswith(("sqlite:///", "postgresql+psycopg://", "${")):
        raise refusal(
            "ledger.url",
            "(not shown)",
            "it starts with neither sqlite:/// nor postgresql+psycopg://",
            "write sqlite:////absolute/path or postgresql+psycopg://user:${LEDGER_PASSWORD}@host/database",
        )
    found = _PASSWORD.search(url)
    if found and not _FROM_ENVIRONMENT.fullmatch(found.group(1) or found.group(2)):
        raise refusal(
            "ledger.url",
            "(not shown)",
            "it contains a plain-text password, which would be stored with the run",
            "put the password in an environment variable and write ${LEDGER_PASSWORD} instead",
        )
