"""Seals a run's config in the storage, which proves that it comes from the owner of the run.

In: a run, opened with its keys. Out: `config.seal.json` beside the config, written by `s3t train`; or the problem.
Without it, an attacker with write access to the storage could remove the witnesses, the copy of the log or a policy
from the config.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

from pydantic import ConfigDict, ValidationError

from s3t_ray.config.load import dump_config
from s3t_ray.config.location import CONFIG_FILE
from s3t_ray.run.run import Run
from s3t_ray.store.seal import Sealed, is_sealed_with, seal

CONFIG_SEAL = "config.seal.json"


class ConfigSeal(Sealed):
    """The sealed values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    sha256: str


def seal_config(run: Run) -> None:
    """Seal the config that `Run.create` has just opened the run with. StoreError."""
    text = dump_config(run.config).encode()
    data = seal(ConfigSeal(sha256=hashlib.sha256(text).hexdigest()), _key(run)).model_dump_json().encode()
    if not run.store.exists(CONFIG_SEAL) or run.store.read_bytes(CONFIG_SEAL) != data:
        run.store.write_bytes(CONFIG_SEAL, data)


def config_problems(run: Run) -> Iterator[str]:
    """Problems if the config in the storage is not the sealed one. An older version's run may have no seal yet."""
    if not run.store.exists(CONFIG_SEAL):
        if run.ledger.is_sealed_since_begun():
            yield f"{CONFIG_SEAL} is gone, which tells whether {CONFIG_FILE} was changed (`s3t train` writes it again)"
        return
    try:
        sealed = ConfigSeal.model_validate_json(run.store.read_bytes(CONFIG_SEAL))
    except ValidationError:
        sealed = None
    if sealed is None or not is_sealed_with(sealed, _key(run)):
        yield f"{CONFIG_SEAL} is not what the run's keys sealed (`s3t train` writes it again)"
    elif hashlib.sha256(run.store.read_bytes(CONFIG_FILE)).hexdigest() != sealed.sha256:
        yield (
            f"{CONFIG_FILE} is not what `s3t train` was given last: somebody changed it in the storage "
            "(`s3t train` with the run's own config puts it back)"
        )


def _key(run: Run) -> str:
    return run.keys.seal_key("config", run.ledger.run_id)
