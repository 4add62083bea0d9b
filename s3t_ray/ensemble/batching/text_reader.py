"""The text of an answer, token by token: what may be shown, and where a stop text ends it.

In: token ids, one at a time. Out: pieces of text that never change again. Work per token does not grow with the
answer: only the tokens since the last whole piece are decoded. Text that could be the beginning of a stop text is held
back until that is decided. The pieces together are the answer, whoever listens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character

Decode = Callable[[Sequence[int]], str]


class TextReader:
    """One a generation. `stopped` is True once a stop text was met: nothing more may be read then."""

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._window: list[int] = []  # the tokens before `_new` are known; some tokenizers decode by their left side
        self._known = 0  # how many of the window were shown
        self._held = ""
        self.stopped = False

    def read(self, token: int) -> str:
        """What this token adds to the text that may be shown."""
        self._window.append(token)
        before = self._decode(self._window[: self._known])
        text = self._decode(self._window)
        if len(text) <= len(before) or text.endswith(_UNFINISHED):
            return ""
        self._window = self._window[self._known :]
        self._known = len(self._window)
        return self._show(text[len(before) :], ended=False)

    def end(self) -> str:
        """The rest, when no token follows."""
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
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
