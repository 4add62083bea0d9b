"""Language models to be judged side by side: the base, PEFT adapters on it, and ensembles of them, by Hugging Face.

In: a base folder, PEFT folders. Out: the mean loss of each answer's tokens, and greedy or sampled answers. An ensemble
is the mean of its members' logits, as in serving. None of it is the engine's own code, so that it also checks that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchlib.small_base import padded
from s3t_ray.config.schema import Task
from s3t_ray.data.readers.inputs import Example, encode, encode_prompt

BATCH = 16
Team = tuple[str, ...]
"""Names of the adapters whose logits are averaged; empty: the base alone."""


class LanguageModels:
    """One base with adapters that are switched on by name."""

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
        """Mean negative log-likelihood of each record's labelled tokens."""
        examples = [encode(content, self.tokenizer, self._task) for content in contents]
        found: list[float] = []
        for start in range(0, len(examples), BATCH):
            found += self._losses(team, examples[start : start + BATCH])
        return found

    def answers(self, team: Team, prompts: Sequence[str], tokens: int, seed: int | None = None) -> list[str]:
        """Each prompt's likeliest continuation, or with a seed one drawn at temperature 1."""
        random = None if seed is None else torch.Generator().manual_seed(seed)
        return [self._answer(team, prompt, tokens, random) for prompt in prompts]

    def _losses(self, team: Team, examples: Sequence[Example]) -> list[float]:
        ids, labels = padded([each.input_ids for each in examples], [each.labels for each in examples])
        with torch.no_grad():
            logits = self._logits(team, ids)[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        learned = (labels[:, 1:] != -100).sum(1)
        return [float(value) for value in each.sum(1) / learned]

    def _answer(self, team: Team, prompt: str, tokens: int, random: torch.Generator | None) -> str:
        ids = list(encode_prompt(prompt, self.tokenizer, self._task).input_ids)
        said: list[int] = []
        while len(said) < tokens:
            with torch.no_grad():
                last = self._logits(team, torch.tensor([ids + said]))[0, -1]
            if random is None:
                token = int(last.argmax())
            else:
                token = int(torch.multinomial(last.softmax(0), 1, generator=random))
            if token == self.tokenizer.eos_token_id:
                break
            said.append(token)
        return self.tokenizer.decode(said)

    def _logits(self, team: Team, ids: Tensor) -> Tensor:
        if not team:
            if not self._adapted:
                return self._model(input_ids=ids).logits
            with self._model.disable_adapter():
                return self._model(input_ids=ids).logits
        found = []
        for name in team:
            self._model.set_adapter(name)
            found.append(self._model(input_ids=ids).logits)
        return torch.stack(found).mean(0)
