"""Measures the held-out loss of all models of a comparison, in one process and in the same way.

    python -m benchlib.held_out COURSE.json MODELS.json RESULT.json

In: PEFT folders by name. Out: the mean loss per response token on the held-out records for each, and for "base" that of
the model without an adapter. PEFT loads the adapters and Hugging Face's forward pass runs them, whoever trained them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchlib.course import Course
from s3t_ray.data.readers.inputs import encode


def losses(course: Course, models: dict[str, str]) -> dict[str, float]:
    """Mean negative log-likelihood per labelled token (nats), by model name."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(course.base)
    task = course.config(Path("held-out"), {}).task
    examples = [encode(content, tokenizer, task) for content in course.held_out]

    def loss(model: torch.nn.Module) -> float:
        summed, counted = 0.0, 0
        with torch.no_grad():
            for example in examples:
                labels = torch.tensor(example.labels)[1:]
                states = model.model(input_ids=torch.tensor([example.input_ids])).last_hidden_state[0, :-1]
                learned = labels != -100
                logits = model.lm_head(states[learned])
                summed += float(torch.nn.functional.cross_entropy(logits, labels[learned], reduction="sum"))
                counted += int(learned.sum())
        return summed / counted

    base = AutoModelForCausalLM.from_pretrained(course.base, dtype=torch.float32).eval()
    found = {"base": loss(base)}
    for name, folder in models.items():
        adapted = PeftModel.from_pretrained(base, folder).eval()
        found[name] = loss(adapted.base_model.model)
        base = adapted.unload()
        vars(base).pop("peft_config", None)
    return found


def main() -> int:
    course = Course.model_validate_json(Path(sys.argv[1]).read_text())
    found = losses(course, json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
