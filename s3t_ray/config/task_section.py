"""The `task` section of the config: what a record teaches. `tasks.py` says what each kind of task needs.

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
    """How an image becomes what the model reads. null: as the base's preprocessor_config.json says."""

    size: PositiveInt | None = None
    """Side of the square that the model reads, in pixels; it must be the base's own. Recipe, where set."""
    resize: Resize | None = None
    """`stretch`: both sides to `size`, whatever the image's proportions. `crop`: the largest square in the middle.
    Recipe, where set."""
    resample: Resample | None = None
    """Filter of the resizing. Recipe, where set."""
    mean: tuple[Colour, Colour, Colour] | None = None
    """Mean of red, green and blue, of values from 0 to 1, that is subtracted. Recipe, where set."""
    std: tuple[Spread, Spread, Spread] | None = None
    """Standard deviation of red, green and blue, by which they are divided. Recipe, where set."""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that are set."""
        return tuple(name for name, value in self if value is not None)


class Task(Section):
    """What a record teaches."""

    kind: TaskName = "causal_lm"
    """What the model learns: the response text, or, with a task head per stage, a class or a number of a text, or the
    class of an image. Recipe."""
    max_tokens: Annotated[int, Field(ge=2)] = 512
    """Length of the longest record, in tokens. Anything beyond it is cut from the end; an image is always whole.
    Recipe."""
    prompt: Literal["alpaca", "chat_template", "plain"] = "alpaca"
    """How an instruction becomes text: with Alpaca's headings, through the tokenizer's chat template, or as bare
    text. Chat messages need `chat_template`. Recipe."""
    date: Day | None = None
    """The day that a chat template which asks for today's date is told, in training and in serving (2026-11-27):
    without it such a template is refused, since a stage would depend on the day it is trained. Recipe, where set."""
    train_on_prompt: Literal["never", "always"] = "never"
    """Whether the loss also covers the prompt's tokens. Plain text is always learned whole. Recipe."""
    labels: tuple[Text, ...] = ()
    """Class names in the order of the head's rows. Classification only. Recipe."""
    text: Text = WHOLE_TEXT
    """What a record that is judged as a whole shows the model: a template over the fields of a row, such as
    "{sentence}" or "{word}: {sentence1}". It decides what a record contains when the data is read."""
    pair: Text | None = None
    """The same for the second text of a pair, such as "{hypothesis}"; null: there is one text."""
    benchmark: BenchmarkName | None = None
    """A task of GLUE or SuperGLUE, or a set of images (cifar10, cifar100, tiny_imagenet), by name: fills in kind,
    labels, text, pair and metrics, and, unless data.path names a copy, the data. With a copy, say data.id_field and
    the held-out records yourself."""
    metrics: tuple[MetricName, ...] = ()
    """What `s3t eval` computes of records judged as a whole, beside the loss: accuracy, f1 (of the second class),
    f1_macro (mean over classes), matthews; pearson and spearman of values. Empty: those usual for the kind."""
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
