"""Results of the ensemble: frozen values, importable without torch or Ray.

They describe the live set, the events of a generation, answers and evaluation scores. They never hold
weights, prompts of other callers or record ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.errors import ClusterError, S3TError

Chain = tuple[str, ...]
"""The stage ids of one model at depths 1..d, the top layer group first. Empty: the base model."""


@dataclass(frozen=True)
class Live:
    """The live set in service. `version` increases with every change; `depths[s]` is the depth of shard s (0: dead)."""

    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...] = ()
    """All stages in service, ordered by shard and then by depth, from 1 up."""


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model emitted an end-of-sequence token, or a stop text occurred
    LENGTH = "length"  # `max_new_tokens` or the model's maximum context length was reached


@dataclass(frozen=True)
class Started:
    """A generation starts or restarts. Discard all earlier events of the same generation.

    A generation restarts when a stage that it used leaves the live set, so no answer mixes models or
    uses a pruned stage.
    """

    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    """All stages that take part, ordered by shard; empty if the base model answers alone."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were reused from the cache of an earlier prompt with the same prefix."""


@dataclass(frozen=True)
class Token:
    """The next token of the answer."""

    id: int
    text: str = ""
    """The text that can now be shown; empty while a character or a possible stop text is incomplete."""
    logprob: float | None = None
    """Its log-probability under the model, if requested. None for the first token of a prompt."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens at this position with their log-probabilities, the most likely first."""


@dataclass(frozen=True)
class PromptRead:
    """The prompt's tokens with their log-probabilities, if `prompt_logprobs` requested them."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class ScoredToken:
    """A token as returned to the caller, with log-probabilities in nats."""

    id: int
    text: str
    logprob: float | None
    """None for the first token of a prompt, which has no prediction."""
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class PromptScored:
    """The prompt's tokens, if their log-probabilities were requested."""

    tokens: tuple[ScoredToken, ...]


@dataclass(frozen=True)
class Piece:
    """The next piece of the answer: final text, and its tokens if log-probabilities were requested."""

    text: str
    tokens: tuple[ScoredToken, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The generation is complete. This is its last event."""

    finish: Finish
    text: str = ""
    """The rest of the text, which was held back until now."""
    tokens: int = 0
    """Tokens in the answer, including those of a stop text."""


@dataclass(frozen=True)
class Failed:
    """The generation failed. This is its last event."""

    error: S3TError


GenerationEvent = Started | PromptRead | Token | Ended | Failed
"""An event of a generation, from the engine. A second `Started` invalidates all earlier events."""

AnswerEvent = Started | PromptScored | Piece | Ended | Failed
"""An event of an answer, for the caller, in this order. A second `Started` invalidates all earlier events."""


@dataclass(frozen=True)
class Generated:
    """A complete generation. `tokens` are the answer's ids, without the prompt and the end-of-sequence token."""

    tokens: tuple[int, ...]
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    finish: Finish
    restarts: int
    """How often a change of the live set restarted it."""


@dataclass(frozen=True)
class Judgement:
    """The prediction of one live set for one record."""

    answer: str
    """The most likely label, or the value."""
    scores: tuple[float, ...]
    """The probability of each class, or the value."""
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """The prediction of one live set for one text, with label names."""

    answer: str
    """The most likely label, or the value."""
    labels: tuple[tuple[str, float], ...]
    """Every label with its probability, the most likely first; empty for a task without labels."""
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    tokens: int
    """Tokens in the text."""


@dataclass(frozen=True)
class Answer:
    """A complete answer. For a task that does not generate text, `text` is the predicted label or value."""

    text: str
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    finish: Finish
    tokens: int
    seconds: float
    scored: tuple[ScoredToken, ...] = ()
    """The answer's tokens, if their log-probabilities were requested."""
    prompt: tuple[ScoredToken, ...] = ()
    """The prompt's tokens, if their log-probabilities were requested."""
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Score:
    """The quality of one ensemble on held-out records."""

    loss: float
    """Mean over predictions (labelled tokens, or records): negative log-likelihood in nats, or squared error."""
    perplexity: float
    tokens: int
    """Number of predictions."""
    standard_error: float
    """Standard error of `loss`, over records; 0.0 if there is only one record."""
    metrics: Mapping[str, float]
    """The values of `task.metrics`, by name; empty for text. NaN: not defined on these records."""


@dataclass(frozen=True)
class EvalReport:
    """Scores on held-out records.

    `by_depth[d]` limits every shard to depth d or its live depth, whichever is less; 0 is the base model.
    """

    live: Live
    records: int
    skipped: int
    """Records with nothing to predict, such as a prompt truncated before its response; not counted in `records`."""
    by_depth: Mapping[int, Score]
    current: Score
    """The score of the ensemble in service."""


@dataclass(frozen=True)
class Wish:
    """A request to a replica (`Following`)."""

    prompt: str | tuple[dict[str, str], ...] | tuple[int, ...]
    """An instruction text, chat messages ({"role", "content"}), or raw token ids."""
    params: SamplingParams
    as_written: bool = False
    """Read a text as it is, without the training template."""
    whole: bool = True
    """Deliver only the complete answer, without streaming."""
    of_base: bool = False
    """Answer with the base model alone, whatever is live."""


def answer_of(events: Iterable[AnswerEvent]) -> Answer:
    """Assemble a complete answer from all its events; `seconds` is 0. Raises the error that ended it, or ClusterError
    if the events are incomplete."""
    started: Started | None = None
    pieces: list[Piece] = []
    prompt: tuple[ScoredToken, ...] = ()
    for event in events:
        match event:
            case Started():
                started, pieces, prompt = event, [], ()
            case PromptScored(tokens=prompt):
                pass
            case Piece():
                pieces.append(event)
            case Failed(error=error):
                raise error
            case Ended() if started is not None:
                return Answer(
                    text="".join(piece.text for piece in pieces) + event.text,
                    version=started.version,
                    depths=started.depths,
                    stages=started.stages,
                    finish=event.finish,
                    tokens=event.tokens,
                    seconds=0.0,
                    scored=tuple(token for piece in pieces for token in piece.tokens),
                    prompt=prompt,
                    prompt_tokens=started.prompt_tokens,
                    cached_tokens=started.cached_tokens,
                )
    raise ClusterError("the model's answer ended before it was complete", "try again")
