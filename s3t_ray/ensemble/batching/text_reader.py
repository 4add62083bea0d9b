"""Decodes an answer token by token: which text can be shown, and where a stop text ends it.

In: token ids, one at a time. Out: pieces of final text, which together form the answer. The work per token does not
grow with the answer, because only the tokens since the last complete piece are decoded. Text that could be the start of
a stop text is held back until it is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # a tokenizer decodes an incomplete character to this

Decode = Callable[[Sequence[int]], str]


class TextReader:
    """Use one per generation. `stopped` is True once a stop text occurred; read no more tokens then."""

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._window: list[int] = []  # includes some shown tokens: decoding may depend on the preceding tokens
        self._known = 0  # how many tokens of the window were shown
        self._held = ""
        self.stopped = False

    def read(self, token: int) -> str:
        """The text that can be shown after this token."""
        self._window.append(token)
        before = self._decode(self._window[: self._known])
        text = self._decode(self._window)
        if len(text) <= len(before) or text.endswith(_UNFINISHED):
            return ""
        self._window = self._window[self._known :]
        self._known = len(self._window)
        return self._show(text[len(before) :], ended=False)

    def end(self) -> str:
        """The rest of the text, after the last token."""
        before = self._decode(self._window[: self._known])
        text = self._decode(self._window)
        return self._show(text[len(before) :], ended=True)

    def _show(self, new: str, ended: bool) -> str:
        text = self._held + new
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if ended else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a proper prefix of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
