"""The table kind x moment, for people: docs/tampering.md."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from tests.faults.tamper.judge import MISSED, all_kinds, judged
from tests.faults.tamper.lived import MOMENTS, Moment, live
from tests.faults.tamper.not_covered import NOTHING_THERE, REASONS

PAGE = Path(__file__).parents[3] / "docs" / "tampering.md"

Cells = Mapping[tuple[str, str], Mapping[str, str]]
"""(who can do it, kind) -> moment -> what became of it."""

HEAD = """# What happens when somebody tampers with a run

Written by `python -m tests.faults.tamper.table`; a test compares it with what happens. Whoever tampers can write the
storage, the ledger, or both, and does not have the keys. Each kind is tried on a small run at three moments: *idle*
(a deletion is certified, nothing is pending), *receipt* (another deletion was accepted, nothing of it is purged) and
*certified* (it is restored). The auditor has the public key, the certificates and the receipts that were handed out,
and the run's keys.

- **audit**: `s3t audit` reports it, with exit code 8.
- **refused**: no command opens the run, or the ledger's own constraints refuse the change.
- **-**: nothing there to tamper with at this moment.
- **not covered**: with the reason.

"""


def judge_all(moments: Mapping[str, Moment]) -> Cells:
    """Try every kind at every moment."""
    return {(who, kind): {name: judged(moments[name], apply) for name in MOMENTS} for who, kind, apply in all_kinds()}


def page(cells: Cells) -> str:
    """The whole page."""
    caught = sum(MISSED not in row.values() for row in cells.values())
    parts = [HEAD, f"{len(cells)} kinds, {caught} of them caught at every moment.\n"]
    for who, title in (
        ("storage", "With the storage alone"),
        ("ledger", "With the ledger alone"),
        ("both", "With both"),
    ):
        parts.append(f"\n## {title}\n\n| kind | {' | '.join(MOMENTS)} |\n|---|{'---|' * len(MOMENTS)}\n")
        for (whose, kind), row in cells.items():
            if whose == who:
                parts.append(f"| {kind} | {' | '.join(_cell(kind, row[name]) for name in MOMENTS)} |\n")
    reasons = dict.fromkeys(REASONS.values())
    parts.append("\n## Not covered, because\n\n")
    parts += [f"{number}. {reason[0].upper()}{reason[1:]}.\n" for number, reason in enumerate(reasons, start=1)]
    return "".join(parts)


def _cell(kind: str, found: str) -> str:
    if found == NOTHING_THERE:
        return "-"
    if found == MISSED:
        return f"not covered ({list(dict.fromkeys(REASONS.values())).index(REASONS[kind]) + 1})"
    return found


def main() -> None:
    """Write the page."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0),
    ):
        PAGE.write_text(page(judge_all(live(Path(folder)))))


if __name__ == "__main__":
    main()
