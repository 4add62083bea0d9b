"""How a membership audit looks: a line per group and attack, then the conclusion in plain words.

In: a MembershipAudit. Out: a rich renderable. Prints nothing and asks the runtime nothing.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from s3t_ray.audit.membership_report import FoundAt, Interval, MembershipAudit
from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import plain_table

_ATTACKS = {"reference_loss": "loss - reference", "min_k": "Min-20%", "min_k_reference": "Min-20% - reference"}


def membership_view(audit: MembershipAudit) -> RenderableType:
    """AUC of every attack on every group, and the conclusion."""
    depths = ", ".join(f"{model.shard} (depth {model.depth})" for model in audit.models)
    head = Text(f"membership against {units.plural(audit.never_seen, 'held-out record')}; models of shards {depths}")
    enough = any(result.found for result in audit.retained.attacks)
    columns = ("group", "records", "attack", "AUC", "95% interval", *(("found at few false alarms",) if enough else ()))
    table = plain_table(*columns)
    for column in (1, 3):
        table.columns[column].justify = "right"
    groups = (
        ("retained", audit.retained),
        ("retained, other shard's model", audit.other_shards),
        ("named", audit.named),
        ("named, other shard's model", audit.named_other_shards),
    )
    for name, group in groups:
        if group is None:
            continue
        for row, result in enumerate(group.attacks):
            shown, records = (name, units.count(group.records)) if row == 0 else ("", "")
            found = (", ".join(_found(each) for each in result.found),) if enough else ()
            value = f"{result.auc.value:.2f}"
            table.add_row(shown, records, _ATTACKS[result.attack], value, _interval(result.auc), *found)
    return Group("", head, table, Text(audit.conclusion))


def _found(at: FoundAt) -> str:
    return f"{at.found.value:.0%} at {at.false_positive_rate:.1%}"


def _interval(interval: Interval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}"
