"""Keeps control tokens separate from text: `</s>` in a text is tokenized as four characters.

In: a fast Hugging Face tokenizer. Out: token ids in which control tokens appear only where a template put them. This
module copies the tokenizer and renames every control token to a name that nobody can write, because it contains a
random number of this process. The original name is then ordinary text, even if the vocabulary contains it as a piece
(SentencePiece) or merges produce it. So text is encoded in one pass with the tokenizer's own rules, and text without
such names gets the tokenizer's own ids. Never imports transformers.
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

_OPEN, _CLOSE = "\ue000", "\ue001"  # from the private use area, which no normalizer changes
_known: WeakKeyDictionary[Any, ControlTokens] = WeakKeyDictionary()


@dataclass(frozen=True)
class Encoded:
    """Token ids, and for each the index of its first character in the text."""

    ids: list[int]
    starts: list[int]


def control_tokens(tokenizer: Any) -> ControlTokens:
    """The ControlTokens of this tokenizer, created on the first call.

    Raises ConfigError if the tokenizer cannot distinguish its control tokens from text.
    """
    found = _known.get(tokenizer)
    if found is None:
        found = _known[tokenizer] = ControlTokens(tokenizer)
    return found


class ControlTokens:
    """The control tokens of one tokenizer: those declared as special."""

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
        """Whether `text` contains the name of a control token."""
        return self._names.search(text) is not None

    def hidden(self, value: Any) -> Any:
        """`value` (texts in lists and objects) with each control token's name replaced by a placeholder.

        A template renders the placeholder like any other text, and `rendered` restores it as text.
        """
        if isinstance(value, str):
            return self._names.sub(lambda match: self._hidden[match.group()], value)
        if isinstance(value, Mapping):
            return {key: self.hidden(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hidden(item) for item in value]
        return value

    def rendered(self, text: str) -> str:
        """Prepare the output of a template over `hidden` values for `encode`.

        Control tokens in it come from the template and stay control tokens. Placeholders become text again.
        """
        return self._either.sub(lambda match: self._replaced[match.group()], text)

    def encode(self, text: str) -> Encoded:
        """The ids of `text`, with nothing added, and with control tokens only where `rendered` marked them."""
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
    """A copy of a `tokenizers.Tokenizer` in which the tokens in `names` are renamed but keep their ids."""
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
