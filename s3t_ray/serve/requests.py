"""What may be asked over HTTP: OpenAI's requests as strict models, and the deletion request.

In: JSON bodies. Out: `Wish`es. A field that this service does not serve is refused by name, never ignored: an
answer that silently took no heed of `stop` or `tools` would be another answer than the one asked for.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from s3t_ray.ensemble.answers import Wish

MOST_NEW_TOKENS = 8192
CHAT_TOKENS, TEXT_TOKENS = 512, 16
"""New tokens when none are asked for."""

Name = Annotated[str, Field(min_length=1, max_length=4096)]


class Request(BaseModel):
    """Base of all requests: a strange field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(Request):
    type: Literal["text"]
    text: str


class ChatMessage(Request):
    role: Literal["system", "user", "assistant"]
    content: str | tuple[TextPart, ...]

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class Sampling(Request):
    """What both kinds of request share."""

    model: Name
    max_tokens: Annotated[int | None, Field(ge=1, le=MOST_NEW_TOKENS)] = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int | None = None
    stream: bool = False
    n: Literal[1] = 1
    user: str | None = None
    """Taken, and not used or stored."""

    def chosen_seed(self) -> int:
        """The seed asked for, or a new one, so that two requests without one differ."""
        return secrets.randbits(31) if self.seed is None else self.seed % 2**63


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MOST_NEW_TOKENS)] = None

    def wish(self) -> Wish:
        most = self.max_completion_tokens or self.max_tokens or CHAT_TOKENS
        told = tuple(message.plain() for message in self.messages)
        return Wish(told, most, self.temperature, self.top_p, self.chosen_seed())


class CompletionRequest(Sampling):
    """POST /v1/completions: the prompt stands in the place of an instruction, in the template of the training."""

    prompt: str

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_of_a_list(cls, value: object) -> object:
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    def wish(self) -> Wish:
        return Wish(self.prompt, self.max_tokens or TEXT_TOKENS, self.temperature, self.top_p, self.chosen_seed())


class DeletionRequest(Request):
    """POST /v1/deletions."""

    ids: tuple[Name, ...] = ()
    subjects: tuple[Name, ...] = ()
