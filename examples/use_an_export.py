"""Use an exported adapter with transformers and PEFT only; the machine does not need s3t_ray.

    s3t export RUN OUT
    python examples/use_an_export.py BASE OUT "Say hello."

An export is the mean of all live shards (or, with --shard N, the live model of one). A later deletion cannot reach your
copies of it: export again after each deletion. The model card lists the deletions before the export.
"""

from __future__ import annotations

import argparse

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def answer(base: str, export: str, prompt: str, tokens: int = 64) -> str:
    """The greedy continuation of the prompt by the base model with the adapter."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), export).eval()
    asked = tokenizer(prompt, return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", help="the folder of the base model")
    parser.add_argument("export", help="the folder that s3t export wrote")
    parser.add_argument("prompt")
    asked = parser.parse_args()
    print(answer(asked.base, asked.export, asked.prompt))


if __name__ == "__main__":
    main()
