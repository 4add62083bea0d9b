"""The `task` section of the config: what the model learns. `tasks.py` says what each kind of task needs.

In: values as they were written. Out: a frozen, checked Task. Must never import torch or anything above `config`.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from s3t_ray.config.benchmarks import BenchmarkName, check_benchmark
from s3t_ray.config.model_shape import Section
from s3t_ray.config.tasks import TASKS, WHOLE_TEXT, MetricName, TaskName

Day = date
Text = Annotated[str, Field(min_length=1)]


Resize = Literal["stretch", "crop"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Colour = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0)]


class Pixels(Section):
    """How an image becomes the model's input. null: as in the base's preprocessor_config.json."""

    size: PositiveInt | None = None
    """Side of the square that the model reads, in pixels; it must match the base. Recipe, if set."""
    resize: Resize | None = None
    """`stretch`: resize both sides to `size`, whatever the image's proportions. `crop`: use the largest square in the
    middle. Recipe, if set."""
    resample: Resample | None = None
    """Filter for resizing. Recipe, if set."""
    mean: tuple[Colour, Colour, Colour] | None = None
    """Mean of red, green and blue (from 0 to 1), which is subtracted. Recipe, if set."""
    std: tuple[Spread, Spread, Spread] | None = None
    """Standard deviation of red, green and blue, by which values are divided. Recipe, if set."""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that are set."""
        return tuple(name for name, value in self if value is not None)


class Task(Section):
    """What the model learns from a record."""

    kind: TaskName = "causal_lm"
    """What the model learns: to write the response, or, with a task head per stage, to give a text a class or a number,
    or an image a class. Recipe."""
    max_tokens: Annotated[int, Field(ge=2)] = 512
    """Maximum length of a record in tokens. Longer records are cut at the end; images are never cut. Recipe."""
    prompt: Literal["alpaca", "chat_template", "plain"] = "alpaca"
    """How an instruction becomes text: with Alpaca's headings, with the tokenizer's chat template, or as plain text.
    Chat messages need `chat_template`. Recipe."""
    date: Day | None = None
    """The date (2026-11-27) that a chat template gets if it asks for today's date, in training and in serving. Without
    it such a template is refused, because a stage would depend on the day it is trained. Recipe, if set."""
    train_on_prompt: Literal["never", "always"] = "never"
    """Whether the loss also covers the prompt's tokens. Plain text is always learned in full. Recipe."""
    labels: tuple[Text, ...] = ()
    """Class names, in the order of the head's rows. Only for classification. Recipe."""
    text: Text = WHOLE_TEXT
    """What the model reads of a record to classify or score: a template over the fields of a row, such as "{sentence}"
    or "{word}: {sentence1}". It decides what a record contains when the data is read."""
    pair: Text | None = None
    """The same for the second text of a pair, such as "{hypothesis}". null: there is only one text."""
    benchmark: BenchmarkName | None = None
    """Name of a GLUE or SuperGLUE task, or of an image data set (cifar10, cifar100, tiny_imagenet). Sets kind, labels,
    text, pair and metrics, and the data unless data.path names a copy. With a copy, set data.id_field and the held-out
    records yourself."""
    metrics: tuple[MetricName, ...] = ()
    """What `s3t eval` computes in addition to the loss: accuracy, f1 (of the second class), f1_macro (mean over
    classes) and matthews for classes; pearson and spearman for values. Empty: the usual metrics of the kind."""
    pixels: Pixels = Pixels()

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Task:
        check_benchmark(self)
        kind = TASKS[self.kind]
        kind.check_labels(self.labels)
        kind.check_metrics(self.metrics, len(self.labels))
        kind.check_texts(self.text, self.pair)
        kind.check_pixels(self.pixels.given)
        return self

    @property
    def head_rows(self) -> int:
        """Outputs of the task head that each stage trains; 0: the task has none of its own."""
        return TASKS[self.kind].head_rows(self.labels)

    @property
    def wanted_metrics(self) -> tuple[MetricName, ...]:
        """`metrics`, or those usual for the kind."""
        return self.metrics or TASKS[self.kind].usual_metrics
