"""Converts text to token ids, without adding or interpreting anything that the caller did not ask for.

In: text and a Hugging Face tokenizer. Out: ids. Never imports transformers: the protocol Tokenizer
declares everything that is used of a tokenizer.
"""

from __future__ import annotations

from typing import Any, Protocol

from s3t_ray.errors import ConfigError


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer's interface that is used here."""

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def unk_token_id(self) -> int | None: ...

    @property
    def chat_template(self) -> Any: ...

    def __call__(self, text: str, **options: Any) -> Any: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


def text_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """The token ids of ordinary text, in which `</s>` is four characters and not the end of the sequence."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def template_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of text from a chat template, in which special tokens are recognized."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def begin_ids(tokenizer: Tokenizer) -> list[int]:
    """The token that starts every sequence of this model; empty if there is none."""
    begin = tokenizer.bos_token_id
    # Some tokenizers define such a token but do not use it, so check how they encode an empty text.
    return [begin] if begin is not None and list(tokenizer("")["input_ids"])[:1] == [begin] else []


def end_id(tokenizer: Tokenizer) -> int:
    """The token that ends a response. Raises ConfigError if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the tokenizer of the base model has no end-of-sequence token, so the model could not learn where to stop",
            "set eos_token in its tokenizer_config.json",
        )
    return tokenizer.eos_token_id
