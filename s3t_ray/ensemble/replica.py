"""One serving replica: the ensemble with the run's config and tokenizer, in words instead of token ids.

In: config as YAML, the folder of the base model, the URI of the run's storage; prompts and record contents. Out:
answers and evaluation reports. A plain class: whoever runs it in a cluster wraps it there. Every method may be
called from any thread: `set_live` may come while `generate` runs, and waits for at most one token of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from transformers import AutoTokenizer

from s3t_ray.config.load import parse_config
from s3t_ray.data.chat import Message
from s3t_ray.data.inputs import Example, TeachesNothing, encode, encode_prompt
from s3t_ray.ensemble.answers import Answer, Chain, Ended, EvalReport, Finish, Live, Piece, Started, Token
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.store.store import Store

Prompt = str | Sequence[Message]
"""A text in the place of an instruction, or the messages of a chat; else the text to judge."""

_UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class Replica:
    """Loads the base model when made; answers as the base model until `set_live` names live chains."""

    def __init__(self, config_yaml: str, base: str, store_uri: str, threads: int | None = None) -> None:
        config = parse_config(config_yaml, "the replica's config")
        self._task = config.task
        self._tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        self._ensemble = Ensemble(config, Path(base), Store.open(store_uri), threads)
        end = self._tokenizer.eos_token_id
        self._eos = tuple(self._ensemble.eos | ({end} if end is not None else set()))

    def ready(self) -> Live:
        """Returns once the replica can answer: what is in service."""
        return self._ensemble.live()

    def set_live(self, version: int, chains: Mapping[int, Chain]) -> int:
        """The version in service once this is done; see `Ensemble.set_live`."""
        return self._ensemble.set_live(version, chains)

    def prune(self, version: int, live: Set[str]) -> int:
        """Take every stage out of service that is not in `live`; see `Ensemble.prune`."""
        return self._ensemble.prune(version, live)

    def prompt_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads before it answers, template included."""
        return len(self._prompt(prompt).input_ids)

    def generate(
        self, prompt: Prompt, max_new_tokens: int = 128, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> Answer:
        """The answer to `prompt`, put as training would have shown it; of a record judged as a whole, in words.

        Raises DataError for a prompt that the model cannot read, ConfigError for settings out of range.
        """
        began = time.monotonic()
        example = self._prompt(prompt)
        if not self._ensemble.generates:
            judged = self._ensemble.judge(example)
            text, tokens, finish = judged.answer, 0, Finish.STOP
            version, depths, stages = judged.version, judged.depths, judged.stages
        else:
            made = self._ensemble.generate(example.input_ids, max_new_tokens, temperature, top_p, seed, self._eos)
            text, tokens, finish = self._text(made.tokens), len(made.tokens), made.finish
            version, depths, stages = made.version, made.depths, made.stages
        return Answer(text, version, depths, stages, finish, tokens, time.monotonic() - began)

    def stream(
        self, prompt: Prompt, max_new_tokens: int = 128, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> Iterator[Started | Piece | Ended]:
        """The answer as it grows. A further `Started` voids the pieces before it; see `Ensemble.stream`."""
        events = self._ensemble.stream(
            self._prompt(prompt).input_ids, max_new_tokens, temperature, top_p, seed, self._eos
        )
        return self._pieces(events)

    def evaluate(self, contents: Sequence[str], depths: Sequence[int] | None = None) -> EvalReport:
        """Scores on held-out records, given by their contents; see `Ensemble.held_out_losses`."""
        return self._ensemble.held_out_losses([self._example(content) for content in contents], depths)

    def _prompt(self, prompt: Prompt) -> Example:
        return encode_prompt(prompt, self._tokenizer, self._task)

    def _example(self, content: str) -> Example:
        try:
            return encode(content, self._tokenizer, self._task)
        except TeachesNothing:  # nothing to learn in it, so nothing to predict: the report counts it as skipped
            return Example((), ())

    def _pieces(self, events: Iterator[Started | Token | Ended]) -> Iterator[Started | Piece | Ended]:
        tokens: list[int] = []
        shown = 0  # characters
        for event in events:
            if isinstance(event, Started):
                tokens, shown = [], 0
                yield event
                continue
            if isinstance(event, Token):
                tokens.append(event.id)
            text = self._text(tokens)
            complete = isinstance(event, Ended) or not text.endswith(_UNFINISHED)
            if complete and len(text) > shown:
                yield Piece(text[shown:])
                shown = len(text)
            if isinstance(event, Ended):
                yield event

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))
