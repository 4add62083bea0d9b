"""`s3t audit --records`, and how a membership audit looks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from s3t_ray.audit.membership_report import (
    AttackResult,
    AuditedModel,
    Finding,
    FoundAt,
    GroupResult,
    Interval,
    MembershipAudit,
)
from s3t_ray.cli.show.show_membership import membership_view
from s3t_ray.errors import DataError
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t


def group(value: float, records: int, *attacks: str) -> GroupResult:
    interval = Interval(value=value, low=value - 0.1, high=value + 0.1)
    found = FoundAt(false_positive_rate=0.01, found=interval)
    return GroupResult(
        records=records,
        attacks=tuple(
            AttackResult(attack=name, auc=interval, found=(found,), mean_score=0.5, mean_never_seen_score=0.0)
            for name in attacks
        ),
    )


def test_every_group_and_attack_has_a_line_and_the_conclusion_follows() -> None:
    audit = MembershipAudit(
        finding=Finding.AS_NEVER_SEEN,
        conclusion="What follows.",
        models=(AuditedModel(shard=0, depth=3, slices=(0, 1, 2)), AuditedModel(shard=1, depth=2, slices=(1, 2))),
        never_seen=16,
        retained=group(0.85, 1040, "reference_loss", "min_k", "min_k_reference"),
        other_shards=group(0.45, 1040, "reference_loss"),
        named=group(0.55, 5, "reference_loss"),
        named_other_shards=None,
        named_records=None,
        seed=0,
    )
    console = Console(width=140)
    with console.capture() as capture:
        console.print(membership_view(audit))
    lines = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert lines[1] == "membership against 16 held-out records; models of shards 0 (depth 3), 1 (depth 2)"
    assert "retained 1,040 loss - reference 0.85 0.75 to 0.95 85% at 1.0%" in lines
    assert "Min-20% - reference 0.85 0.75 to 0.95 85% at 1.0%" in lines
    assert "retained, other shard's model 1,040 loss - reference 0.45 0.35 to 0.55 45% at 1.0%" in lines
    assert "named 5 loss - reference 0.55 0.45 to 0.65 55% at 1.0%" in lines
    assert lines[-1] == "What follows."
    assert len(lines) == 1 + 2 + 3 + 1 + 1 + 1


def test_records_that_cannot_be_measured_fail_the_command_after_its_report(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(6)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    missing = s3t("audit", str(tmp_path / "run"), "--records", str(tmp_path / "gone.jsonl"))
    assert missing.exit_code == DataError.exit_code
    assert "gone.jsonl" in missing.stderr
    assert "no problem found" in missing.stdout
    # Without a held-out record there is nothing to measure by; nobody asked by name, so the audit stands.
    full = s3t("audit", str(tmp_path / "run"), "--full", "--replay", "0")
    assert full.exit_code == 0
    assert "no held-out records" in full.stderr
    handed_in = write_records(tmp_path / "handed-in.jsonl", [("r1", None)])
    asked = s3t("audit", str(tmp_path / "run"), "--records", str(handed_in))
    assert asked.exit_code == DataError.exit_code
