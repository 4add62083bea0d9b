"""How an auditor's statement looks. In: its facts. Out: rich renderables."""

from __future__ import annotations

import hashlib

from rich.console import Group, RenderableType
from rich.text import Text

from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import plain_table
from s3t_ray.errors import NotProved, VerificationFailed
from s3t_ray.proof.audit_statement import AuditFacts

_WORDS = {"equal": "equal to the bit", "differs": "differs", "not_proved": "not proved"}
_ENDS = {"verified": ("verified", "bold green"), "not_proved": ("not proved", "bold yellow"),
         "failed": ("not verified", "bold red")}  # fmt: skip


def statement_view(facts: AuditFacts) -> RenderableType:
    """Everything that the statement says."""
    fingerprint = hashlib.sha256(bytes.fromhex(facts.run_key)).hexdigest()
    parts: list[RenderableType] = [
        Text(f"run           {units.printable(facts.run)} ({facts.run_id}), key {fingerprint}", style="bold"),
        Text(f"checked at    {units.printable(facts.at)}"),
        Text(f"log           {units.plural(facts.entries, 'entry')}, newest {facts.head}, root {facts.root}"),
        Text(f"checked       {units.plural(facts.records, 'record')}, {units.plural(facts.stages, 'stage')}; "
             f"{units.plural(len(facts.replayed), 'stage')} retrained"),
        Text(f"software      {units.printable(', '.join(f'{name} {told}' for name, told in facts.software.items()))}"),
    ]  # fmt: skip
    if facts.replayed:
        table = plain_table("replayed", "shard", "adapter", "result", "different")
        for stage in facts.replayed:
            unlike = units.printable("; ".join(stage.mismatches))
            table.add_row(
                units.printable(units.short_id(stage.stage)),
                str(stage.shard),
                units.printable(stage.adapter_sha256[:16]),
                _WORDS[stage.verdict],
                unlike,
            )
        parts.append(table)
    parts += [Text(f"not purged yet: deletion {units.printable(name)}", style="yellow") for name in facts.excused]
    parts += [Text(f"not checked: {units.printable(line)}", style="dim") for line in facts.not_checked]
    parts += [Text(f"problem: {units.printable(problem)}", style="red") for problem in facts.problems]
    return Group(*parts, Text(_ENDS[facts.result][0], style=_ENDS[facts.result][1]))


def raise_unless_stated_good(facts: AuditFacts) -> None:
    """Raise the error that gives the statement its exit code: VerificationFailed or NotProved."""
    differing = sum(stage.verdict == "differs" for stage in facts.replayed)
    if facts.result == "failed":
        raise VerificationFailed(
            f"the auditor found {units.plural(len(facts.problems), 'problem')}; {differing} of "
            f"{units.plural(len(facts.replayed), 'replayed stage')} differ",
            "keep the statement; each problem names the stage or slice to look at",
        )
    if facts.result == "not_proved":
        raise NotProved(
            "retrained stages gave different bytes, on different hardware or library versions",
            "replay on the hardware and with the versions that the stages were trained with",
        )
