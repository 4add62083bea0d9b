"""What the ensemble tells its callers: frozen values, importable without torch or Ray.

In: nothing. Out: the live set in words, the events of a generation, answers and evaluation scores.
Never holds weights, prompts of other callers or record ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Chain = tuple[str, ...]
"""Stage ids of depth 1..d of one model, the top layer group first. Empty: the base model."""


@dataclass(frozen=True)
class Live:
    """What is in service: `version` counts up with every change, `depths[s]` is shard s's depth (0: dead)."""

    version: int
    depths: tuple[int, ...]


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model said end of sequence
    LENGTH = "length"  # `max_new_tokens`, or the model's longest context, was reached


@dataclass(frozen=True)
class Started:
    """A generation begins, or begins anew: everything heard of it before this event is void.

    It begins anew when a stage that it used leaves the live set, so that no answer mixes models and
    none rests on a pruned stage.
    """

    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    """Every stage that takes part, shard by shard; empty when the base model answers alone."""


@dataclass(frozen=True)
class Token:
    """The next token of the answer."""

    id: int


@dataclass(frozen=True)
class Piece:
    """The next piece of the answer's text (`Replica.stream`)."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The generation is complete; nothing follows."""

    finish: Finish


@dataclass(frozen=True)
class Generated:
    """One complete generation: token ids of the answer, without the prompt and the end-of-sequence token."""

    tokens: tuple[int, ...]
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    finish: Finish
    restarts: int
    """How often a change of the live set made it begin anew."""


@dataclass(frozen=True)
class Judgement:
    """One record, judged as a whole by one live set."""

    answer: str
    """The name of the likeliest class, or the value."""
    scores: tuple[float, ...]
    """How likely each class is, or the value alone."""
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """`Replica.generate`: where a record is judged as a whole, `text` is the answer in words."""

    text: str
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    finish: Finish
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Score:
    """How well one ensemble does on held-out records."""

    loss: float
    """Mean over predictions (labelled tokens, or records judged as a whole): negative log-likelihood in nats, or
    squared error."""
    perplexity: float
    tokens: int
    """Predictions."""
    standard_error: float
    """Of `loss`, over records; 0.0 when there is only one record to judge by."""
    metrics: Mapping[str, float]
    """Of `task.metrics`, by name; empty for text. NaN: not defined on these records."""


@dataclass(frozen=True)
class EvalReport:
    """`by_depth[d]`: every shard cut at depth d or its live depth, whichever is less; 0 is the base model."""

    live: Live
    records: int
    skipped: int
    """Records with nothing to predict, such as a prompt cut before its response; not counted in `records`."""
    by_depth: Mapping[int, Score]
    current: Score
    """The ensemble in service."""


@dataclass(frozen=True)
class Wish:
    """What is asked of a replica (`Following`)."""

    prompt: str | tuple[dict[str, str], ...]
    """A text in the place of an instruction, or chat messages ({"role", "content"})."""
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Completion:
    """A whole answer, released: every stage that it rests on was live when it was complete."""

    answer: Answer
    prompt_tokens: int
