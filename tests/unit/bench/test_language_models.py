"""TOFU's evaluation: batched answers equal single ones, and two models reveal what one hides."""

from __future__ import annotations

import pytest
import torch
from benchlib.language_models import Guidance, LanguageModels, guided
from benchlib.tiny_base import tiny_base

from s3t_ray.config.schema import Task
from s3t_ray.data.readers.inputs import encode_prompt

PROMPTS = ["say a", "say something much longer than that, please", "who?"]
TASK = Task(max_tokens=256)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> LanguageModels:
    return LanguageModels(tiny_base(tmp_path_factory.mktemp("base"), 2), TASK)


def test_answers_of_a_batch_are_those_of_each_text_alone(models: LanguageModels) -> None:
    together = models.answers((), PROMPTS, 6)
    for prompt, said in zip(PROMPTS, together, strict=True):
        ids = torch.tensor([list(encode_prompt(prompt, models.tokenizer, TASK).input_ids)])
        with torch.no_grad():
            whole = models._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        alone = [token for token in whole[0, ids.shape[1] :].tolist() if token != models.tokenizer.eos_token_id]
        assert said == models.tokenizer.decode(alone)
    assert models.answers((), PROMPTS, 6, seed=1) == models.answers((), PROMPTS, 6, seed=1)


def test_the_models_before_and_after_together_find_what_was_forgotten() -> None:
    """The token that grew less likely wins, unless it was unlikely before."""
    before = torch.tensor([[0.5, 0.4, 0.09, 0.01]]).log()
    after = torch.tensor([[0.6, 0.2, 0.199, 0.001]]).log()
    assert int(before.argmax()) == 0 and int(guided(before, after, Guidance(())).argmax()) == 1
    scores = guided(before, after, Guidance((), weight=3.0, share=0.1))
    expected = before[0, 1] + 2 * (before[0, 1] - after[0, 1])
    assert scores[0, 1].item() == pytest.approx(expected.item(), abs=1e-6)
    assert scores[0, 3].item() == float("-inf"), "a fiftieth of the likeliest"
    alone = guided(before, after, Guidance((), weight=1.0, share=1e-9))
    assert torch.allclose(alone, before)
