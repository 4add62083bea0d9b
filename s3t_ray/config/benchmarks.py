"""The classification benchmarks by name: GLUE and SuperGLUE, as `task.benchmark` fills them in.

In: a config as it was written, before validation. Out: the same with the fields that the benchmark's task decides,
where they were not given. Class names stand in the order of the published label numbers; metrics are those by which
the benchmark is judged. The sets are read from the hub unless `data.path` names a copy with the same fields.
Must never look at the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from s3t_ray.config.refuse import refusal

if TYPE_CHECKING:
    from s3t_ray.config.task_section import Task

BenchmarkName = Literal[
    "sst2", "cola", "qqp", "qnli", "mrpc", "mnli", "stsb", "rte",
    "boolq", "copa", "wic", "cb", "multirc", "wsc",
]  # fmt: skip

_GLUE, _SUPERGLUE = "nyu-mll/glue", "aps/super_glue"
_TRUE = ("false", "true")


@dataclass(frozen=True)
class Benchmark:
    """One task of a benchmark."""

    path: str
    """Hub name of the set."""
    labels: tuple[str, ...]
    """Empty: regression."""
    text: str
    pair: str | None
    metrics: tuple[str, ...]
    holdout_split: str = "validation"
    id_field: str | None = "idx"

    def task(self) -> dict[str, Any]:
        """The fields of the `task` section that the benchmark decides."""
        kind = "classification" if self.labels else "regression"
        fields = {"kind": kind, "labels": list(self.labels), "text": self.text, "metrics": list(self.metrics)}
        return fields if self.pair is None else {**fields, "pair": self.pair}


BENCHMARKS: Mapping[str, Benchmark] = {
    "sst2": Benchmark(_GLUE, ("negative", "positive"), "{sentence}", None, ("accuracy",)),
    "cola": Benchmark(_GLUE, ("unacceptable", "acceptable"), "{sentence}", None, ("matthews",)),
    "qqp": Benchmark(_GLUE, ("not_duplicate", "duplicate"), "{question1}", "{question2}", ("accuracy", "f1")),
    "qnli": Benchmark(_GLUE, ("entailment", "not_entailment"), "{question}", "{sentence}", ("accuracy",)),
    "mrpc": Benchmark(_GLUE, ("not_equivalent", "equivalent"), "{sentence1}", "{sentence2}", ("accuracy", "f1")),
    "mnli": Benchmark(
        _GLUE,
        ("entailment", "neutral", "contradiction"),
        "{premise}",
        "{hypothesis}",
        ("accuracy",),
        holdout_split="validation_matched",
    ),
    "stsb": Benchmark(_GLUE, (), "{sentence1}", "{sentence2}", ("pearson", "spearman")),
    "rte": Benchmark(_GLUE, ("entailment", "not_entailment"), "{sentence1}", "{sentence2}", ("accuracy",)),
    "boolq": Benchmark(_SUPERGLUE, _TRUE, "{question}", "{passage}", ("accuracy",)),
    # Not a multiple-choice head, which scores each choice by itself: the pair names both, the class says which.
    "copa": Benchmark(
        _SUPERGLUE,
        ("choice1", "choice2"),
        "{premise} What was the {question} of this?",
        "{choice1} Or: {choice2}",
        ("accuracy",),
    ),
    "wic": Benchmark(_SUPERGLUE, _TRUE, "{word}: {sentence1}", "{word}: {sentence2}", ("accuracy",)),
    "cb": Benchmark(
        _SUPERGLUE,
        ("entailment", "contradiction", "neutral"),
        "{premise}",
        "{hypothesis}",
        ("accuracy", "f1_macro"),
    ),
    # Its `idx` is not one number; F1 is over all answers (F1a).
    "multirc": Benchmark(_SUPERGLUE, _TRUE, "{paragraph}", "{question} {answer}", ("f1", "accuracy"), id_field=None),
    "wsc": Benchmark(_SUPERGLUE, _TRUE, "{span2_text}: {text}", "{span1_text}", ("accuracy",)),
}


def fill_benchmark(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with what `task.benchmark` decides, where it does not say it itself. What is malformed stays as it is."""
    task, data = tree.get("task"), tree.get("data", {})
    if not isinstance(task, dict) or not isinstance(data, dict):
        return tree
    name = task.get("benchmark")
    if not isinstance(name, str) or name not in BENCHMARKS:
        return tree
    found = BENCHMARKS[name]
    # A copy of one's own has files of its own, too.
    place = {} if "path" in data else {"path": found.path, "subset": name, "holdout_split": found.holdout_split}
    rest = {"id_field": found.id_field, "on_malformed": "set_aside"} if place else {}
    return {**tree, "task": {**found.task(), **task}, "data": {**place, **rest, **data}}


def check_benchmark(task: Task) -> None:
    """Raise a refusal when a field contradicts `task.benchmark`."""
    if task.benchmark is None:
        return
    found = BENCHMARKS[task.benchmark]
    kind = "classification" if found.labels else "regression"
    for field, wanted, given in (
        ("kind", kind, task.kind),
        ("labels", found.labels, task.labels),
        ("text", found.text, task.text),
        ("pair", found.pair, task.pair),
    ):
        if given != wanted:
            shown = list(wanted) if isinstance(wanted, tuple) else wanted
            raise refusal(
                f"task.{field}",
                list(given) if isinstance(given, tuple) else given,
                f"task.benchmark {task.benchmark} has {shown}",
                f"remove task.{field}, or remove task.benchmark",
            )
