"""How proofs look: certificates, what a check of them found, audits and verifications.

In: certificates and reports. Out: rich renderables. Prints nothing and asks the runtime nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from s3t_ray.audit.membership_report import MembershipAudit
from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import Glyphs, plain_table
from s3t_ray.errors import NotProved, VerificationFailed
from s3t_ray.proof.certificate import AnyCertificate
from s3t_ray.proof.export_entry import ExportEntry
from s3t_ray.proof.handed_out import Inclusion
from s3t_ray.proof.key_entry import CarriedKeyEntry, KeyEntry
from s3t_ray.proof.receipt import SignedReceipt
from s3t_ray.proof.run_log import name_of
from s3t_ray.proof.signed_entry import SignedEntry
from s3t_ray.run.reports import AuditReport, ReplayedStage, Report, Verdict, Verification


class CertificatesChecked(Report):
    """`s3t check-certificate`: all entries are genuine and follow one another."""

    certificates: int
    """Entries of the log, including receipts."""
    first: int
    """Number of the first entry in the run's log, from 1."""
    last: int
    missing: int
    """Entries between them that were not given."""
    head: str
    """Hash of the last entry, which the next entry names."""
    run: str
    public_key: str
    """Fingerprint (SHA-256)."""
    in_log: tuple[Inclusion, ...] = ()
    """What each given proof proves."""
    stamped_at: str | None = None
    """Time (UTC) at which a timestamp authority saw the proof's checkpoint; null: no timestamp was given."""
    requests: tuple[str, ...]


class FullAudit(AuditReport):
    """`s3t audit --full`."""

    membership: MembershipAudit


def entry_view(entry: SignedEntry) -> RenderableType:
    """An entry, with all facts if it is a certificate."""
    if isinstance(entry, AnyCertificate):
        return certificate_view(entry)
    lines = [Text(f"entry {entry.facts.sequence} of run {units.printable(entry.facts.run)}: "
                  f"{units.printable(name_of(entry))}", style="bold")]  # fmt: skip
    for field, value in entry.facts.model_dump().items():
        if field not in ("sequence", "run"):
            lines.append(Text(f"{field:<17}{units.printable(str(value))}"))
    return Group(*lines, Text(f"{'hash':<17}{entry.hash}"), "")


def certificate_view(certificate: AnyCertificate) -> RenderableType:
    """All facts of a certificate."""
    facts = certificate.facts
    lines = [
        Text(f"certificate {facts.sequence} of run {units.printable(facts.run)}", style="bold"),
        Text(f"deletion      {units.printable(facts.request_id)}"),
        Text(f"records       {units.count(facts.records)} deleted, {units.count(facts.already_deleted)} earlier, "
             f"{units.count(facts.unknown)} unknown names"),
        Text(f"accepted      {units.printable(facts.accepted_at)}"),
        Text(f"pruned        {units.printable(facts.pruned_at)}"),
        Text(f"purged        {units.printable(facts.purged_at)}"),
        Text(f"restored      {units.printable(facts.restored_at or 'not yet: this is the interim certificate')}"),
        Text(f"stages        {len(facts.stages_pruned)} removed and erased, {len(facts.stages_live)} live in the "
             "affected shards"),
        Text(f"recipe        {units.printable(facts.recipe_digest)}"),
        Text(f"base model    {units.printable(facts.base_digest)}"),
        Text(f"orders        {units.printable(certificate.orders.kind)}"
             + (", chosen based on earlier deletions" if certificate.orders.depends_on_history else "")),
        Text(f"software      {units.printable(', '.join(f'{k} {v}' for k, v in certificate.software.items()))}"),
        Text(f"signed by     {certificate.fingerprint}"),
        Text(f"hash          {certificate.hash}"),
        Text(f"follows       {facts.previous}"),
    ]  # fmt: skip
    table = plain_table("shard", "slice", "records", "digest before", "digest after")
    for column in (0, 1, 2):
        table.columns[column].justify = "right"
    for change in facts.slices:
        shard = "held out" if change.shard < 0 else str(change.shard)
        table.add_row(
            shard,
            str(change.slice),
            units.count(change.records),
            change.digest_before[:16],
            change.digest_after[:16],
        )
    return Group(*lines, *((table,) if facts.slices else ()), "")


def checked_view(checked: CertificatesChecked, entries: Sequence[SignedEntry]) -> RenderableType:
    table = plain_table("number", "entry", "deletion", "records", "accepted", "restored")
    table.columns[3].justify = "right"
    for entry in entries:
        facts = entry.facts
        if isinstance(entry, AnyCertificate):
            restored = entry.facts.restored_at
            table.add_row(
                str(facts.sequence),
                "certificate" if restored else "interim certificate",
                units.printable(entry.facts.request_id),
                units.count(entry.facts.records),
                units.printable(entry.facts.accepted_at),
                units.printable(restored or "not yet"),
            )
        elif isinstance(entry, SignedReceipt):
            said = entry.facts
            table.add_row(
                str(said.sequence),
                "receipt",
                units.printable(said.request_id),
                units.count(said.records),
                units.printable(said.accepted_at),
                "",
            )
        else:
            table.add_row(str(facts.sequence), _what(entry), "", "", "", "")
    whole = checked.first == 1 and not checked.missing
    where = f"the whole log of run {checked.run} so far" if whole else f"a part of the log of run {checked.run}"
    if checked.missing:
        where += f", with {checked.missing} entries in between not given"
    proved = [
        Text(f"in the log: entry {each.entry} of {each.size} under root {each.root[:16]}, seen by "
             f"{units.printable(', '.join(each.cosigned)) or 'no witness given'}")
        for each in checked.in_log
    ]  # fmt: skip
    if checked.stamped_at is not None:
        proved.append(
            Text(f"stamped: the log had this entry at {checked.stamped_at}, according to the timestamp authority")
        )
    return Group(
        table,
        *proved,
        Text(f"genuine: signed by key {checked.public_key} and unchanged", style="bold green"),
        Text(f"consistent: entries {checked.first} to {checked.last}, {units.printable(where)}; hash {checked.head}"),
        Text("only the run can tell whether there are newer certificates (`s3t certificate RUN`)", style="dim"),
    )


def verification_view(verification: Verification, signs: Glyphs) -> RenderableType:
    head = Text(
        f"{units.plural(verification.records, 'record')} and {units.plural(verification.stages, 'stage')} checked, "
        f"{units.plural(len(verification.replayed), 'stage')} replayed"
    )
    return Group(head, *_findings(verification, signs, "verified", "not verified"))


def raise_unless_verified(report: Verification, advice: str) -> None:
    """Raise the error that gives the report its exit code: VerificationFailed or NotProved."""
    replayed = units.plural(len(report.replayed), "replayed stage")
    if report.result == "failed":
        problems = units.plural(len(report.problems), "problem")
        raise VerificationFailed(f"{problems} found; {report.differing} of {replayed} differ", advice)
    if report.result == "not_proved":
        unlike = sorted({name for stage in report.replayed for name in stage.mismatches})
        raise NotProved(
            f"{report.unproved} of {replayed} gave different bytes, on different hardware or library versions: "
            + units.printable("; ".join(unlike)),
            "replay on the hardware and with the versions that the stages were trained with",
        )


def audit_view(report: AuditReport, signs: Glyphs) -> RenderableType:
    head = Text(
        f"{units.plural(report.certificates, 'certificate')}, {units.plural(report.records, 'record')} and "
        f"{units.plural(report.stages, 'stage')} checked, {units.plural(len(report.replayed), 'stage')} replayed\n"
        f"signed by {report.public_key}\nnewest certificate {report.head}"
    )
    return Group(head, *_findings(report, signs, "no problem found", "problems found"))


def _findings(report: Verification, signs: Glyphs, good: str, bad: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if report.replayed:
        table = plain_table("replayed", "shard", "slices", "result", "largest difference")
        table.columns[1].justify = "right"
        for stage in report.replayed:
            slices = units.order(stage.slices, signs.arrow)
            name = units.short_id(stage.stage_id)
            table.add_row(name, str(stage.shard), slices, _result(stage), f"{stage.largest_difference:.3g}")
        parts += ["", table]
    if report.excused:
        names = units.listed(report.excused)
        parts.append(
            Text(f"not purged yet, so their remaining data is not a problem: deletions {names}", style="yellow")
        )
    parts += [Text(f"problem: {units.printable(problem)}", style="red") for problem in report.problems]
    parts.append(
        {
            "verified": Text(good, style="bold green"),
            "not_proved": Text("not proved: the replay proves nothing about these stages", style="bold yellow"),
            "failed": Text(bad, style="bold red"),
        }[report.result]
    )
    return parts


def _result(stage: ReplayedStage) -> Text:
    return {
        Verdict.EQUAL: Text("equal to the bit", style="green"),
        Verdict.DIFFERS: Text("differs", style="bold red"),
        Verdict.NOT_PROVED: Text("not proved", style="yellow"),
    }[stage.verdict]


def _what(entry: SignedEntry) -> str:
    """Description of an entry that does not belong to a deletion."""
    if isinstance(entry, ExportEntry):
        return "an export" if entry.facts.what == "noted" else "an export is gone"
    if isinstance(entry, CarriedKeyEntry):
        return "another key signs a restored log"
    return "another key signs" if isinstance(entry, KeyEntry) else "the run begins"
