"""Text into token ids, with nothing added or understood that the caller did not ask for.

In: text and a Hugging Face tokenizer. Out: ids. Must never import transformers: the tokenizer is
given, and Tokenizer says all that is used of it.
"""

from __future__ import annotations

from typing import Any, Protocol

from s3t_ray.errors import ConfigError


class Tokenizer(Protocol):
    """What we use of a Hugging Face tokenizer."""

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
    """Token ids of ordinary text: `</s>` in it is four characters, not the end of the sequence."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def template_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of text that a chat template made: its special tokens are what they say."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def begin_ids(tokenizer: Tokenizer) -> list[int]:
    """The token that begins every sequence of this model; empty where it has none."""
    begin = tokenizer.bos_token_id
    # Some tokenizers have such a token and do not use it; what they make of no text tells.
    return [begin] if begin is not None and list(tokenizer("")["input_ids"])[:1] == [begin] else []


def end_id(tokenizer: Tokenizer) -> int:
    """The token that ends a response. Raises ConfigError: the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the tokenizer of the base model has no end-of-sequence token, so the model could not learn where to stop",
            "set eos_token in its tokenizer_config.json",
        )
    return tokenizer.eos_token_id
