"""Freeze the results of small trainings in tests/data/recipe.json (docs/releasing.md).

    python -m tools.freeze_recipe

If the recipe format is already frozen, this only adds the digests of this machine. It refuses if the results differ
from the frozen ones: then the current change alters the weights, and RECIPE_FORMAT must be increased first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from s3t_ray.config.recipe import RECIPE_FORMAT
from tests.e2e.train.recipe_cases import CASES, FROZEN, WITH_DROPOUT, Frozen, Outcome, dropout_mask, run_case


def main() -> str | None:
    """None, or the reason for refusing."""
    outcomes: dict[str, Outcome] = {}
    here: dict[str, str] = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[name], where = run_case(name, Path(folder))
            here |= where
    digests = {name: outcome.digest for name, outcome in outcomes.items()}
    frozen = Frozen.load() if FROZEN.is_file() else None
    if frozen is None or frozen.recipe_format != RECIPE_FORMAT:
        frozen = Frozen(RECIPE_FORMAT, dropout_mask(), outcomes, [])
    for name, outcome in outcomes.items():
        comparable = name not in WITH_DROPOUT or frozen.dropout_mask == dropout_mask()
        if comparable and not frozen.agrees(name, outcome):
            return f"case {name} trains other weights than those frozen under recipe format {RECIPE_FORMAT}"
    known = frozen.digests_under(here)
    if known is None:
        frozen.machines.append((here, digests))
    elif known != digests:
        changed = [name for name in CASES if known[name] != digests[name]]
        return f"cases {changed} give other bytes here than those frozen under recipe format {RECIPE_FORMAT}"
    FROZEN.write_text(frozen.dump())
    return None


if __name__ == "__main__":
    sys.exit(main())
