"""Evaluates language models with Hugging Face: the base, PEFT adapters on it, and ensembles of adapters.

In: a base folder, PEFT folders. Out: the mean loss per answer token, and greedy or sampled answers. An ensemble
averages its members' logits, as in serving. Uses none of the engine's code, so it also checks the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from benchlib.small_base import padded
from s3t_ray.config.schema import Task
from s3t_ray.data.readers.inputs import Example, encode, encode_prompt

BATCH = 16
Team = tuple[str, ...]
"""Names of the adapters whose logits are averaged; empty means the base alone."""


@dataclass(frozen=True)
class Guidance:
    """The attack of arXiv 2505.24379, which combines the models from before and after a deletion.

    A token's score is log p_before + (weight - 1) (log p_before - log p_after), among the tokens whose
    p_before is at least `share` of the highest.
    """

    after: Team
    weight: float = 2.0
    share: float = 0.1


class LanguageModels:
    """One base with adapters that are activated by name."""

    def __init__(self, base: Path, task: Task) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self._task = task
        self._model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self._adapted = False

    def add(self, name: str, folder: Path) -> None:
        """Load a PEFT folder under `name`."""
        from peft import PeftModel

        if self._adapted:
            self._model.load_adapter(folder, adapter_name=name)
        else:
            self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name).eval()
            self._adapted = True

    def losses(self, team: Team, contents: Sequence[str]) -> list[float]:
        """Mean negative log-likelihood (nats) of each record's labelled tokens."""
        examples = [encode(content, self.tokenizer, self._task) for content in contents]
        found = [0.0] * len(examples)
        alike = sorted(range(len(examples)), key=lambda at: len(examples[at].input_ids))
        for start in range(0, len(alike), BATCH):
            own = alike[start : start + BATCH]
            for at, loss in zip(own, self._losses(team, [examples[at] for at in own]), strict=True):
                found[at] = loss
        return found

    def answers(
        self,
        team: Team,
        prompts: Sequence[str],
        tokens: int,
        seed: int | None = None,
        guidance: Guidance | None = None,
    ) -> list[str]:
        """Each prompt's greedy continuation, or with a seed, one sampled at temperature 1."""
        random = None if seed is None else torch.Generator().manual_seed(seed)
        found: list[str] = []
        for start in range(0, len(prompts), BATCH):
            found += self._answers(team, prompts[start : start + BATCH], tokens, random, guidance)
        return found

    def _losses(self, team: Team, examples: Sequence[Example]) -> list[float]:
        ids, labels = padded([each.input_ids for each in examples], [each.labels for each in examples])
        with torch.inference_mode():
            logits = torch.stack([self._model_of(member)(ids, {}) for member in team or ("",)]).mean(0)[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        learned = (labels[:, 1:] != -100).sum(1)
        return [float(value) for value in each.sum(1) / learned]

    def _answers(
        self,
        team: Team,
        prompts: Sequence[str],
        tokens: int,
        random: torch.Generator | None,
        guidance: Guidance | None,
    ) -> list[str]:
        """Answers of one batch, padded on the left; every member of a team has its own cache."""
        rows = [list(encode_prompt(prompt, self.tokenizer, self._task).input_ids) for prompt in prompts]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        speakers = [_Speaker(self, each) for each in ((team,) if guidance is None else (team, guidance.after))]
        said: list[list[int]] = [[] for _ in rows]
        ended = torch.zeros(len(rows), dtype=torch.bool)
        for _ in range(tokens):
            with torch.inference_mode():
                scores = [speaker.next(ids, mask) for speaker in speakers]
            last = scores[0] if guidance is None else guided(scores[0], scores[1], guidance)
            drawn = last.argmax(1) if random is None else torch.multinomial(last.softmax(1), 1, generator=random)[:, 0]
            ended |= drawn == self.tokenizer.eos_token_id
            if bool(ended.all()):
                break
            for row, token in enumerate(drawn.tolist()):
                if not ended[row]:
                    said[row].append(token)
            ids, mask = drawn[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        return [self.tokenizer.decode(row) for row in said]

    def _model_of(self, member: str) -> Any:
        """A function from ids and settings to logits, for one adapter or the base alone."""

        def logits(ids: Tensor, settings: dict[str, Any]) -> Tensor:
            with self._only(member):
                out: Tensor = self._model(input_ids=ids, **settings).logits
            return out

        return logits

    @contextmanager
    def _only(self, member: str) -> Iterator[None]:
        if member:
            self._model.set_adapter(member)
            yield
        elif self._adapted:
            with self._model.disable_adapter():
                yield
        else:
            yield


class _Speaker:
    """A team that continues a batch of texts."""

    def __init__(self, models: LanguageModels, team: Team) -> None:
        self._members = [(models._model_of(member), DynamicCache()) for member in team or ("",)]

    def next(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [N x V] after the texts so far; `ids`: the new tokens, `mask`: which of all tokens are not padding."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        found = [
            model(ids, {"attention_mask": mask, "position_ids": positions, "past_key_values": cache, "use_cache": True})
            for model, cache in self._members
        ]
        return torch.stack([each[:, -1] for each in found]).mean(0)


def guided(before: Tensor, after: Tensor, guidance: Guidance) -> Tensor:
    """Scores [N x V] of the next token from both models' logits; -inf for tokens too unlikely before."""
    old, new = before.log_softmax(1), after.log_softmax(1)
    scores = old + (guidance.weight - 1) * (old - new)
    allowed = old >= old.max(1, keepdim=True).values + torch.log(torch.tensor(guidance.share))
    return scores.masked_fill(~allowed, -torch.inf)
