"""A tokenizer that separates its control tokens from text: `</s>` in a text is four characters.

In: a fast Hugging Face tokenizer. Out: ids of text in which each control token stands only where a template put it.
The copy of the tokenizer made here knows every control token by a name that nobody can write (it holds a random
number of this process); under its own name it is text like any other, also where the vocabulary holds it as a piece
(SentencePiece) or merges lead to it. So a text is encoded in one pass, by the rules of the tokenizer itself, and
ids of text without such names are the tokenizer's own. Never imports transformers.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from s3t_ray.errors import ConfigError

_OPEN, _CLOSE = "\ue000", "\ue001"  # of the private use area: no normaliser changes them
_known: WeakKeyDictionary[Any, ControlTokens] = WeakKeyDictionary()


@dataclass(frozen=True)
class Encoded:
    """Ids, and for each the first character of the text that it stands for."""

    ids: list[int]
    starts: list[int]


def control_tokens(tokenizer: Any) -> ControlTokens:
    """The one ControlTokens of this tokenizer; made on the first call. ConfigError: they cannot be distinguished."""
    found = _known.get(tokenizer)
    if found is None:
        found = _known[tokenizer] = ControlTokens(tokenizer)
    return found


class ControlTokens:
    """The control tokens of one tokenizer: those that it declares special."""

    def __init__(self, tokenizer: Any) -> None:
        backend = tokenizer.backend_tokenizer
        added = tokenizer.added_tokens_decoder
        self.ids: dict[str, int] = {token.content: number for number, token in added.items() if token.special}
        for name in tokenizer.all_special_tokens:
            self.ids.setdefault(str(name), int(tokenizer.convert_tokens_to_ids(name)))
        nonce = secrets.token_hex(8)
        self._secret = {name: f"{_OPEN}{nonce}c{number}{_CLOSE}" for name, number in self.ids.items()}
        self._hidden = {name: f"{_OPEN}{nonce}t{number}{_CLOSE}" for name, number in self.ids.items()}
        shown = {hidden: name for name, hidden in self._hidden.items()}
        # Longest first: a token takes precedence over one that it contains.
        self._names = _alternatives(self.ids)
        self._either = _alternatives([*self.ids, *shown])
        self._replaced = {**self._secret, **shown}
        self._copy: Any = _renamed(backend, self._secret)
        self._check()

    def are_in(self, text: str) -> bool:
        """Whether `text` spells a control token."""
        return self._names.search(text) is not None

    def hidden(self, value: Any) -> Any:
        """`value` (texts in lists and objects) with each spelled control token under a name that `encode` shows as
        text again. A template renders it like any other text."""
        if isinstance(value, str):
            return self._names.sub(lambda match: self._hidden[match.group()], value)
        if isinstance(value, Mapping):
            return {key: self.hidden(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hidden(item) for item in value]
        return value

    def rendered(self, text: str) -> str:
        """Text that a template made of `hidden` values, as `encode` takes it: the control tokens in it are the
        template's, and what was hidden is text."""
        return self._either.sub(lambda match: self._replaced[match.group()], text)

    def encode(self, text: str) -> Encoded:
        """Ids of `text`, with nothing added; control tokens only where `rendered` found them."""
        made = self._copy.encode(text, add_special_tokens=False)
        return Encoded(list(made.ids), [start for start, _ in made.offsets])

    def _check(self) -> None:
        for name, number in self.ids.items():
            if self.encode(self._secret[name]).ids != [number] or number in self.encode(f"a{name}b").ids:
                raise ConfigError(
                    f"the tokenizer of the base model cannot distinguish its control token {name!r} from text",
                    "save the tokenizer again with a current version of transformers (save_pretrained)",
                )


def _alternatives(names: Any) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name) or "(?!)")


def _renamed(backend: Any, names: Mapping[str, str]) -> Any:
    """A copy of a `tokenizers.Tokenizer` in which the tokens in `names` have other names, with the same ids."""
    plan = json.loads(backend.to_str())
    for token in plan["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = plan["model"]
    rename: Callable[[str], str] = lambda name: names.get(name, name)  # noqa: E731
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {rename(name): number for name, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[rename(name), score] for name, score in vocabulary]
    if model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if _result(merge) not in names]
    if model.get("unk_token"):
        model["unk_token"] = rename(model["unk_token"])
    plan["truncation"] = plan["padding"] = plan["post_processor"] = None
    return type(backend).from_str(json.dumps(plan, ensure_ascii=False))


def _result(merge: str | list[str]) -> str:
    return merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)
