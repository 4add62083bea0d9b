"""The tasks that a model can learn: their requirements for config and base, and the location of their code.

Out: TASKS, by `task.kind`. To add a task, write its two classes, name them here, and test them. They are named and not
imported, because this package is below theirs. `records`, in `data`, turns a row into a record, and a record into
tokens and a label, without torch. `model`, in `train`, has the loss, the head, the combination of the shards' outputs,
and their evaluation. Never imports torch or anything above `config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from string import Formatter
from typing import Any, Literal

from s3t_ray.config.refuse import refusal

TaskName = Literal["causal_lm", "classification", "regression", "image_classification"]

MetricName = Literal["accuracy", "f1", "f1_macro", "matthews", "pearson", "spearman"]

Architecture = Literal["decoder", "encoder", "vision"]
"""A decoder predicts each token from the previous ones. An encoder reads the entire record and scores it with a task
head. A vision model is an encoder for images."""

HeadRows = Literal["none", "classes", "value"]
"""Rows of the task head that each stage trains: one per class, or one. "none": uses the base's vocabulary head."""


WHOLE_TEXT = "{text}"
"""The default of `task.text`."""


@dataclass(frozen=True)
class TaskKind:
    """The properties of a task that code outside its own classes needs."""

    name: TaskName
    architecture: Architecture
    head: HeadRows
    metrics: tuple[MetricName, ...]
    """The values allowed in `task.metrics`."""
    usual_metrics: tuple[MetricName, ...]
    """The metrics computed if `task.metrics` is empty."""
    records: str
    """`module:Class` of its part without torch, a `data.task_records.TaskRecords`."""
    model: str
    """`module:Class` of its part with torch, a `train.task_models.task_model.TaskModel`."""

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Raise a refusal if `task.labels` does not fit the task."""
        if self.head == "classes":
            if len(labels) < 2:
                raise refusal("task.labels", list(labels), f"{self.name} needs at least 2 classes", "name them all")
            if len(set(labels)) < len(labels):
                raise refusal("task.labels", list(labels), "a class is named twice", "name each class once")
        elif labels:
            raise refusal(
                "task.labels", list(labels), f"kind is {self.name}", "remove task.labels, or set kind: classification"
            )

    def check_metrics(self, metrics: tuple[MetricName, ...], classes: int) -> None:
        """Raise a refusal if `task.metrics` does not fit the task."""
        strange = [name for name in metrics if name not in self.metrics]
        if strange:
            fix = f"choose from {', '.join(self.metrics)}" if self.metrics else "remove task.metrics"
            raise refusal("task.metrics", strange, f"kind {self.name} does not have this metric", fix)
        if "f1" in metrics and classes != 2:
            raise refusal("task.metrics", "f1", f"it is defined for 2 classes, not for {classes}", "use f1_macro")

    def head_rows(self, labels: tuple[str, ...]) -> int:
        """The number of outputs of the task head; 0: there is no task head."""
        return {"none": 0, "classes": len(labels), "value": 1}[self.head]

    def check_texts(self, text: str, pair: str | None) -> None:
        """Raise a refusal if `task.text` or `task.pair` does not fit the task, or is not a template."""
        if self.head == "none" or self.architecture == "vision":
            if text != WHOLE_TEXT or pair is not None:
                name, given = ("task.text", text) if text != WHOLE_TEXT else ("task.pair", pair)
                why = "which uses no text" if self.architecture == "vision" else "where task.prompt selects the fields"
                raise refusal(name, given, f"kind is {self.name}, {why}", f"remove {name}")
            return
        for name, template in (("task.text", text), ("task.pair", pair)):
            if template is not None and not template_fields(template):
                raise refusal(
                    name, template, "it is not a template that names a field of a row", "write e.g. {sentence}"
                )

    def check_pixels(self, given: tuple[str, ...]) -> None:
        """Raise a refusal if fields of `task.pixels` are set for a task without images."""
        if given and self.architecture != "vision":
            raise refusal(
                f"task.pixels.{given[0]}", "set", f"kind is {self.name}, which uses no images", "remove task.pixels"
            )


TASKS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        TaskKind(
            name="causal_lm",
            architecture="decoder",
            head="none",
            metrics=(),
            usual_metrics=(),
            records="s3t_ray.data.text_records:TextRecords",
            model="s3t_ray.train.task_models.text_model:TextModel",
        ),
        TaskKind(
            name="classification",
            architecture="encoder",
            head="classes",
            metrics=("accuracy", "f1", "f1_macro", "matthews"),
            usual_metrics=("accuracy",),
            records="s3t_ray.data.labelled_records:LabelledRecords",
            model="s3t_ray.train.task_models.class_model:ClassModel",
        ),
        TaskKind(
            name="regression",
            architecture="encoder",
            head="value",
            metrics=("pearson", "spearman"),
            usual_metrics=("pearson", "spearman"),
            records="s3t_ray.data.scored_records:ScoredRecords",
            model="s3t_ray.train.task_models.value_model:ValueModel",
        ),
        TaskKind(
            name="image_classification",
            architecture="vision",
            head="classes",
            metrics=("accuracy", "f1", "f1_macro", "matthews"),
            usual_metrics=("accuracy",),
            records="s3t_ray.data.images.image_records:ImageRecords",
            model="s3t_ray.train.task_models.image_model:ImageModel",
        ),
    )
}


def template_fields(template: str) -> tuple[str, ...]:
    """The row fields that a template such as "{premise}" names, in order; empty if it is not a template."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        return ()
    names = [name for _, name, _, _ in parts if name is not None]
    plain = all(
        name.isidentifier() and not spec and not conversion for _, name, spec, conversion in parts if name is not None
    )
    return tuple(names) if plain else ()


def load_half(place: str) -> Any:
    """The class at `module:Class`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
