"""The HTTP requests: OpenAI's requests as strict models, and the deletion request.

In: JSON bodies. Out: `Wish`es. Fields without effect (null, or the value that means "none") are accepted, because
clients send many of them. An unsupported field is refused by name with advice, never ignored: an answer that silently
ignored `tools` would not be the requested one.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from s3t_ray.data.unicode_text import is_unicode
from s3t_ray.ensemble.answers import Wish
from s3t_ray.ensemble.batching.sampling_params import MOST_LOGPROBS, SamplingParams
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.run.deletion_list import LongText, OfficeRequest, ShortText

MOST_NEW_TOKENS = 8192
CHAT_TOKENS, TEXT_TOKENS = 512, 16
"""Default number of new tokens."""
MOST_ANSWERS = 128
"""Maximum of prompts times `n` per request."""

Name = Annotated[str, Field(min_length=1, max_length=4096)]
TokenIds = Annotated[tuple[Annotated[int, Field(strict=True, ge=0)], ...], Field(min_length=1)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]

NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
}
"""Unsupported fields, with the values that have no effect."""

IGNORED = frozenset({"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields about the caller that do not affect answers. They are not used, stored or logged."""

INSTEAD = {
    "tools": "this service calls no tools; describe them in the prompt and read the answer yourself",
    "functions": "this service calls no functions; describe them in the prompt and read the answer yourself",
    "response_format": "answers are plain text; ask for the format in the prompt and check it yourself",
    "logit_bias": "logits cannot be changed one by one; use presence_penalty or frequency_penalty",
    "best_of": "ask for n answers with logprobs and choose yourself",
    "suffix": "the model only continues a text; put what follows into the prompt",
    "use_beam_search": "answers are sampled; use temperature 0 for the likeliest tokens",
    "reasoning_effort": "this model does not reason apart from its answer; leave it out",
    "guided_json": "answers are plain text; ask for the format in the prompt and check it yourself",
}
"""Advice for unsupported fields."""

_SHOWN = 80
"""Characters of a field's name in an error."""


class Request(BaseModel):
    """Base of all requests: drops nulls, and refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        for name, value in told.items():
            if not _all_unicode(name) or not _all_unicode(value):
                raise ValueError(f"{name[:_SHOWN]!a} contains half a surrogate pair, which is not a character")
        return {
            name: value
            for name, value in told.items()
            if value is not None
            and (name in cls.model_fields or (name not in IGNORED and value not in NEUTRAL.get(name, ())))
        }


def _all_unicode(value: Any) -> bool:
    """Whether every text in a JSON value can be encoded. Without recursion, because callers choose the nesting."""
    left = [value]
    while left:
        match left.pop():
            case str(text) if not is_unicode(text):
                return False
            case list(items):
                left += items
            case dict(fields):
                left += [*fields.keys(), *fields.values()]
    return True


class TextPart(Request):
    type: Literal["text"]
    text: str


class ChatMessage(Request):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[TextPart, ...]

    @model_validator(mode="before")
    @classmethod
    def _as_clients_send_history(cls, told: Any) -> Any:
        """Drop the empty fields of an earlier answer that a client sends back."""
        if not isinstance(told, dict):
            return told
        return {name: value for name, value in told.items() if not (name not in cls.model_fields and value in ([], ""))}

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(Request):
    include_usage: bool = False
    """Add a last event with the token usage of the request."""
    include_obfuscation: bool = False
    """Accepted but not used; use TLS with padding instead."""


class Sampling(Request):
    """Fields shared by both kinds of request."""

    model: Name
    run: Name | None = None
    """Name of the run that is meant; another one refuses."""
    max_tokens: Annotated[int | None, Field(ge=0, le=MOST_NEW_TOKENS)] = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    """0 or -1: all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    stop: Annotated[tuple[StopText, ...], Field(max_length=16)] = ()
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    ignore_eos: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_stop_text(cls, told: Any) -> Any:
        if isinstance(told, dict) and isinstance(told.get("stop"), str):
            return {**told, "stop": [told["stop"]] if told["stop"] else []}
        return told

    def _params(self, seed: int, most: int, logprobs: int | None, prompt_logprobs: bool) -> SamplingParams:
        return SamplingParams(
            max_new_tokens=most,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=seed,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            stop=self.stop,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            ignore_eos=self.ignore_eos,
        )

    def _seeds(self) -> list[int]:
        """Seeds of the n answers: the requested seed and its successors, or random ones, so that two requests without a
        seed differ."""
        first = secrets.randbits(31) if self.seed is None else self.seed
        return [(first + number) % 2**63 for number in range(self.n)]


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MOST_NEW_TOKENS)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] = 0

    def wishes(self) -> tuple[Wish, ...]:
        """One for each answer, in the order of their `index`."""
        most = self.max_completion_tokens or (CHAT_TOKENS if self.max_tokens is None else self.max_tokens)
        told = tuple(message.plain() for message in self.messages)
        count = self.top_logprobs if self.logprobs else None
        return tuple(
            Wish(told, self._params(seed, most, count, False), whole=not self.stream) for seed in self._seeds()
        )


class CompletionRequest(Sampling):
    """POST /v1/completions. A text is put into the training's prompt template; with `echo` or `as_written`, and for
    token ids, it is used unchanged."""

    prompt: str | TokenIds | Annotated[tuple[str, ...] | tuple[TokenIds, ...], Field(min_length=1)]
    echo: bool = False
    """Start the answer with the prompt; with `logprobs`, also score its tokens, as evaluations need."""
    as_written: bool = False
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None

    @model_validator(mode="before")
    @classmethod
    def _no_scores(cls, told: Any) -> Any:
        """Some clients send `false` for none."""
        if isinstance(told, dict) and told.get("logprobs") is False:
            return {name: value for name, value in told.items() if name != "logprobs"}
        return told

    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """The separate prompts."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if isinstance(self.prompt[0], int):
            return (self.prompt,)
        return self.prompt

    def wishes(self) -> tuple[Wish, ...]:
        """One for each answer, in the order of their `index`: all n of the first prompt, then of the next."""
        most = TEXT_TOKENS if self.max_tokens is None else self.max_tokens
        scores = self.echo and (self.logprobs is not None or most == 0)
        return tuple(
            Wish(
                prompt,
                self._params(seed, most, self.logprobs, scores),
                as_written=self.echo or self.as_written,
                whole=not self.stream,
            )
            for prompt in self.prompts()
            for seed in self._seeds()
        )


class TokeniseRequest(Request):
    """POST /v1/tokenize: the ids that the model would read. POST /v1/detokenize: their text."""

    model: Name | None = None
    prompt: str | None = None
    messages: tuple[ChatMessage, ...] | None = None
    tokens: TokenIds | None = None
    as_written: bool = True
    """False: put the text into the training's prompt template. Messages always are."""


class ClassifyRequest(Request):
    """POST /v1/classifications."""

    model: Name
    run: Name | None = None
    input: Annotated[str | tuple[str, ...], Field(min_length=1)]

    def texts(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else self.input


class DeletionRequest(Request):
    """POST /v1/deletions."""

    ids: tuple[Name, ...] = ()
    subjects: tuple[Name, ...] = ()
    run: Name | None = None
    """Name of the run that is meant; another one refuses."""
    reference: ShortText | None = None
    """Your own reference for the request; kept with the deletion."""
    requester: ShortText | None = None
    """Who asked; encrypted, and erased when the deletion is restored."""
    reason: LongText | None = None
    """Why; encrypted, and erased when the deletion is restored."""
    due: str | None = None
    """When the records must be purged: a date (its end, UTC), or a time with its offset."""

    def details(self) -> RequestDetails:
        """The details that the ledger stores. DataError: the due date is invalid."""
        told = OfficeRequest(reference=self.reference, requester=self.requester, reason=self.reason, due=self.due)
        return told.details()
