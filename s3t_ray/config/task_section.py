"""The `task` section of the config: what the model learns. `tasks.py` defines the requirements of each kind of task.

In: values as written. Out: a frozen, checked Task. Never imports torch or anything above `config`.
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
    """How an image is converted to the model's input. null: as in the base's preprocessor_config.json."""

    size: PositiveInt | None = None
    """Side of the square that the model reads, in pixels; it must match the base. Recipe, if set."""
    resize: Resize | None = None
    """`stretch`: resize both sides to `size`, ignoring the aspect ratio. `crop`: use the largest centred square.
    Recipe, if set."""
    resample: Resample | None = None
    """Filter for resizing. Recipe, if set."""
    mean: tuple[Colour, Colour, Colour] | None = None
    """Mean of red, green and blue (from 0 to 1), subtracted from the pixels. Recipe, if set."""
    std: tuple[Spread, Spread, Spread] | None = None
    """Standard deviation of red, green and blue, by which the pixels are divided. Recipe, if set."""

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the fields that are set."""
        return tuple(name for name, value in self if value is not None)


class Task(Section):
    """What the model learns from a record."""

    kind: TaskName = "causal_lm"
    """What the model learns: to generate the response, or, with a task head per stage, to predict a class or a number
    for a text, or a class for an image. Recipe."""
    max_tokens: Annotated[int, Field(ge=2)] = 512
    """Maximum length of a record in tokens. Longer records are truncated at the end; images are never truncated.
    Recipe."""
    prompt: Literal["alpaca", "chat_template", "plain"] = "alpaca"
    """How an instruction becomes text: with Alpaca's headings, with the tokenizer's chat template, or as plain text.
    Chat messages need `chat_template`. Recipe."""
    date: Day | None = None
    """The date (2026-11-27) given to a chat template that uses today's date, in training and in serving. Without it,
    such a template is refused, because a stage would depend on the day of its training. Recipe, if set."""
    train_on_prompt: Literal["never", "always"] = "never"
    """Whether the loss also covers the prompt's tokens. For plain text it always covers all tokens. Recipe."""
    labels: tuple[Text, ...] = ()
    """Class names, in the order of the head's rows. Only for classification. Recipe."""
    text: Text = WHOLE_TEXT
    """The text of a record to classify or score: a template over the fields of a row, such as "{sentence}" or
    "{word}: {sentence1}". It determines a record's content when the data is ingested."""
    pair: Text | None = None
    """The template for the second text of a pair, such as "{hypothesis}". null: there is only one text."""
    benchmark: BenchmarkName | None = None
    """Name of a GLUE or SuperGLUE task, or of an image data set (cifar10, cifar100, tiny_imagenet). Sets kind, labels,
    text, pair and metrics, and the data unless data.path names a copy. With a copy, set data.id_field and the held-out
    records yourself."""
    metrics: tuple[MetricName, ...] = ()
    """Metrics of `s3t eval` in addition to the loss: accuracy, f1 (of the second class), f1_macro (mean over classes)
    and matthews for classes; pearson and spearman for values. Empty: the default metrics of the kind."""
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
        """The number of outputs of the task head that each stage trains; 0: there is no task head."""
        return TASKS[self.kind].head_rows(self.labels)

    @property
    def wanted_metrics(self) -> tuple[MetricName, ...]:
        """`metrics`, or the default ones of the kind."""
        return self.metrics or TASKS[self.kind].usual_metrics
