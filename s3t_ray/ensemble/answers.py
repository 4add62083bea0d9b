"""Results of the ensemble: frozen values, importable without torch or Ray.

In: nothing. Out: the live set in words, the events of a generation, answers and evaluation scores.
Never holds weights, prompts of other callers or record ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.errors import ClusterError, S3TError

Chain = tuple[str, ...]
"""Stage ids of depth 1..d of one model, the top layer group first. Empty: the base model."""


@dataclass(frozen=True)
class Live:
    """What is in service: `version` counts up with every change, `depths[s]` is shard s's depth (0: dead)."""

    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...] = ()
    """Every stage in service, shard by shard and each shard's from depth 1 down."""


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model said end of sequence
    LENGTH = "length"  # `max_new_tokens`, or the model's longest context, was reached


@dataclass(frozen=True)
class Started:
    """A generation begins, or begins again: everything heard of it before this event is void.

    It begins again when a stage that it used leaves the live set, so that no answer mixes models and
    none rests on a pruned stage.
    """

    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    """Every stage that takes part, shard by shard; empty when the base model answers alone."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, those that an earlier prompt began with too: they were not read again."""


@dataclass(frozen=True)
class Token:
    """The next token of the answer."""

    id: int
    text: str = ""
    """What it adds to the text that may be shown; the end of a character or of a stop text may be awaited."""
    logprob: float | None = None
    """Its log-probability under the model, if it was asked for. None for the first token of a prompt."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place, the likeliest first, with their log-probabilities."""


@dataclass(frozen=True)
class PromptRead:
    """The tokens of the prompt with their log-probabilities, if `prompt_logprobs` asked for them."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class ScoredToken:
    """A token as a caller sees it, with log-probabilities in nats."""

    id: int
    text: str
    logprob: float | None
    """None for the first token of a prompt, which nothing predicts."""
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class PromptScored:
    """The prompt's tokens, if their log-probabilities were asked for."""

    tokens: tuple[ScoredToken, ...]


@dataclass(frozen=True)
class Piece:
    """The next piece of the answer: text that never changes again, and its tokens if they were to be scored."""

    text: str
    tokens: tuple[ScoredToken, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The generation is complete; nothing follows."""

    finish: Finish
    text: str = ""
    """The rest of the text, which was held back until now."""
    tokens: int = 0
    """Tokens of the answer, those of a stop text included."""


@dataclass(frozen=True)
class Failed:
    """The generation failed; no event follows."""

    error: S3TError


GenerationEvent = Started | PromptRead | Token | Ended | Failed
"""What the engine says of a generation. `Started` again voids all that came before it."""

AnswerEvent = Started | PromptScored | Piece | Ended | Failed
"""What a caller hears of an answer, in this order. `Started` again voids all that came before it."""


@dataclass(frozen=True)
class Generated:
    """One complete generation: token ids of the answer, without the prompt and the end-of-sequence token."""

    tokens: tuple[int, ...]
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    finish: Finish
    restarts: int
    """How often a change of the live set made it begin again."""


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
class Judged:
    """One text, judged by one live set, in words."""

    answer: str
    """The likeliest label, or the value."""
    labels: tuple[tuple[str, float], ...]
    """Every label with its probability, the likeliest first; empty for a task without labels."""
    version: int
    depths: tuple[int, ...]
    stages: tuple[str, ...]
    tokens: int
    """Of the text."""


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
    scored: tuple[ScoredToken, ...] = ()
    """The answer's tokens, if their log-probabilities were asked for."""
    prompt: tuple[ScoredToken, ...] = ()
    """Those of the prompt, if they were asked for."""
    prompt_tokens: int = 0
    cached_tokens: int = 0


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

    prompt: str | tuple[dict[str, str], ...] | tuple[int, ...]
    """A text in the place of an instruction, chat messages ({"role", "content"}), or token ids as they are."""
    params: SamplingParams
    as_written: bool = False
    """A text is read as it is, without the template of the training."""
    whole: bool = True
    """The caller reads only the complete answer."""
    of_base: bool = False
    """The base model answers alone, whatever is live."""


def answer_of(events: Iterable[AnswerEvent]) -> Answer:
    """One whole answer from all that was heard of it; `seconds` is 0. Raises what ended it."""
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
