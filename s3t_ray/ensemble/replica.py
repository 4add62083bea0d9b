"""One serving replica: the ensemble with the run's config and tokenizer, for text instead of token ids.

In: the config as YAML, the folder of the base model, the URI of the run's storage; prompts and record contents. Out:
answers and evaluation reports. This is a plain class, which a cluster wraps in an actor. Every method may be called
from any thread. `set_live` may be called during generation and waits for at most one step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import cast

from s3t_ray.config.load import parse_config
from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import begin_ids, text_ids
from s3t_ray.data.images.image_transform import ImageTransform
from s3t_ray.data.readers.inputs import Example, TeachesNothing, encode, encode_prompt
from s3t_ray.ensemble.answers import (
    Answer,
    AnswerEvent,
    Chain,
    EvalReport,
    Finish,
    GenerationEvent,
    Judged,
    Live,
    Piece,
    PromptRead,
    PromptScored,
    ScoredToken,
    Token,
    Wish,
    answer_of,
)
from s3t_ray.ensemble.batching.generation_row import GenerationRequest
from s3t_ray.ensemble.batching.outbox import Outbox
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.errors import DataError
from s3t_ray.store.store import Store
from s3t_ray.train.loading.base_reader import base_reader

Prompt = str | Sequence[Message] | Sequence[int]
"""An instruction text, chat messages, or token ids. For a task that does not generate text: the text to classify."""


class Replica:
    """Loads the base model on construction. Answers with the base model until `set_live` sets live chains."""

    def __init__(self, config_yaml: str, base: str, store_uri: str, threads: int | None = None) -> None:
        config = parse_config(config_yaml, "the replica's config")
        self._task = config.task
        self._tokenizer = base_reader(base, config.task)
        self._ensemble = Ensemble(config, Path(base), Store.open(store_uri), threads)
        end = self._tokenizer.eos_token_id if self._ensemble.generates else None
        self._eos = tuple(self._ensemble.eos | ({end} if end is not None else set()))

    def ready(self) -> Live:
        """The live set in service. Returns once the replica can answer."""
        return self._ensemble.live()

    def set_live(self, version: int, chains: Mapping[int, Chain]) -> int:
        """Put `chains` in service. Returns the version then in service; see `Ensemble.set_live`."""
        return self._ensemble.set_live(version, chains)

    def prune(self, version: int, live: Set[str]) -> int:
        """Remove every stage that is not in `live` from service; see `Ensemble.prune`."""
        return self._ensemble.prune(version, live)

    def tokenise(self, prompt: Prompt, as_written: bool = False) -> tuple[int, ...]:
        """The token ids that the model reads for `prompt`, including the template.

        Raises DataError if the prompt is invalid or the model reads images.
        """
        return self._ids(prompt, as_written)

    def detokenise(self, ids: Sequence[int]) -> str:
        """The text of `ids`, including special tokens. Raises DataError for an unknown id."""
        self._check_reads_text()
        self._check_ids(ids)
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def request(self, wish: Wish) -> GenerationRequest:
        """Convert a request for the engine. Raises DataError for a prompt that the model cannot read."""
        ids = self._ids(wish.prompt, wish.as_written)
        return GenerationRequest(ids, wish.params, frozenset(self._eos), self._text, wish.whole, wish.of_base)

    def submit(self, name: str, wish: Wish, outbox: Outbox) -> None:
        """Start an answer. Its events go to `outbox` under `name`. See `Ensemble.submit`."""
        self._ensemble.submit(name, self.request(wish), outbox)

    def cancel(self, name: str) -> None:
        """Cancel an answer whose client has disconnected. It may have ended already."""
        self._ensemble.cancel(name)

    @property
    def generates(self) -> bool:
        """Whether the model generates text. If not, use `judge`."""
        return self._ensemble.generates

    @property
    def load(self) -> int:
        """The number of running and queued answers."""
        return self._ensemble.load

    def heard(self, events: Iterable[GenerationEvent], scores: bool) -> list[AnswerEvent]:
        """Convert the events of one generation for the caller. Consecutive tokens become one piece.

        `scores`: whether the caller requested log-probabilities.
        """
        made: list[AnswerEvent] = []
        for event in events:
            if isinstance(event, PromptRead):
                made.append(PromptScored(tuple(self._scored(token) for token in event.tokens)))
            elif isinstance(event, Token):
                tokens = (self._scored(event),) if scores else ()
                last = made[-1] if made else None
                if isinstance(last, Piece):
                    made[-1] = Piece(last.text + event.text, last.tokens + tokens)
                elif event.text or tokens:
                    made.append(Piece(event.text, tokens))
            else:
                made.append(event)
        return made

    def judge(self, text: str) -> Judged:
        """The model's prediction for one text. Raises ConfigError for a model that generates text."""
        example = encode_prompt(text, self._tokenizer, self._task)
        made = self._ensemble.judge(example)
        pairs = zip(self._task.labels, made.scores, strict=True) if self._task.labels else ()
        labels = tuple(sorted(pairs, key=lambda pair: -pair[1]))
        return Judged(made.answer, labels, made.version, made.depths, made.stages, len(example.input_ids))

    def generate(
        self, prompt: Prompt, max_new_tokens: int = 128, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> Answer:
        """The answer to `prompt`, in the training template. Without text generation: the predicted label or value.

        Raises DataError for a prompt that the model cannot read, ConfigError for settings out of range.
        """
        began = time.monotonic()
        if not self._ensemble.generates:
            judged = self.judge(str(prompt))
            told = (judged.version, judged.depths, judged.stages)
            return Answer(judged.answer, *told, Finish.STOP, 0, time.monotonic() - began)
        wish = Wish(_frozen(prompt), SamplingParams(max_new_tokens, temperature, top_p, seed))
        answer = answer_of(self.heard(self._ensemble.follow(self.request(wish)), scores=False))
        return replace(answer, seconds=time.monotonic() - began)

    def stream(
        self, prompt: Prompt, max_new_tokens: int = 128, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> Iterator[AnswerEvent]:
        """Stream the answer. Another `Started` invalidates all earlier pieces; see `Ensemble.submit`."""
        wish = Wish(_frozen(prompt), SamplingParams(max_new_tokens, temperature, top_p, seed))
        events = self._ensemble.follow(self.request(wish))
        return (heard for event in events for heard in self.heard([event], scores=False))

    def evaluate(self, contents: Sequence[str], depths: Sequence[int] | None = None) -> EvalReport:
        """The scores on held-out records, given by their contents; see `Ensemble.held_out_losses`."""
        return self._ensemble.held_out_losses([self._example(content) for content in contents], depths)

    def _ids(self, prompt: Prompt, as_written: bool) -> tuple[int, ...]:
        self._check_reads_text()
        if isinstance(prompt, str):
            if as_written:
                return (*begin_ids(self._tokenizer), *text_ids(prompt, self._tokenizer))
            return tuple(encode_prompt(prompt, self._tokenizer, self._task).input_ids)
        if prompt and isinstance(prompt[0], int):
            ids = cast("tuple[int, ...]", tuple(prompt))
            self._check_ids(ids)
            return ids
        messages = cast("Sequence[Message]", prompt)
        return tuple(encode_prompt(messages, self._tokenizer, self._task).input_ids)

    def _check_reads_text(self) -> None:
        if isinstance(self._tokenizer, ImageTransform):
            raise DataError(
                f"a {self._task.kind} model reads images, which have no token ids",
                "send the image to /v1/classifications, as a data URL",
            )

    def _check_ids(self, ids: Sequence[int]) -> None:
        size = len(self._tokenizer)
        strange = [token for token in ids if not 0 <= token < size]
        if strange:
            raise DataError(f"{strange[0]} is not a token id of this model", f"use ids from 0 to {size - 1}")

    def _scored(self, token: Token) -> ScoredToken:
        top = tuple((self._piece(other), logprob) for other, logprob in token.top)
        return ScoredToken(token.id, self._piece(token.id), token.logprob, top)

    def _piece(self, token: int) -> str:
        """The text of a single token. Incomplete characters become the replacement character."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def _example(self, content: str) -> Example:
        try:
            return encode(content, self._tokenizer, self._task)
        except TeachesNothing:  # the record has nothing to predict; the report counts it as skipped
            return Example((), ())

    def _text(self, tokens: Sequence[int]) -> str:
        # `TextReader` calls this for each token.
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _frozen(prompt: Prompt) -> str | tuple[Message, ...] | tuple[int, ...]:
    return prompt if isinstance(prompt, str) else cast("tuple[Message, ...] | tuple[int, ...]", tuple(prompt))
