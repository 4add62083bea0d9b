"""Creates random weights of a base of any shape directly on the device, without writing or reading 26 GB.

In: a shape. Out: a folder with a config and a tokenizer, and a context manager inside which transformers creates the
weights of such a folder on the device instead of loading them. The rest of the engine is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchlib.random_base import llama_config
from benchlib.tiny_base import tiny_base

from s3t_ray.config.schema import ModelShape

POSITIONS = 8192


def shape_only(folder: Path, shape: ModelShape) -> Path:
    """Write config.json and a byte-level tokenizer."""
    if shape.vocabulary < 300:
        raise ValueError(f"the tokenizer has 300 tokens, but the shape has a vocabulary of {shape.vocabulary}")
    tiny_base(folder, 1)
    (folder / "model.safetensors").unlink()
    llama_config(shape, POSITIONS).save_pretrained(folder)
    return folder


@contextmanager
def made_on(device: str) -> Iterator[None]:
    """Inside the block, Llamas get random weights on `device` instead of being loaded; the same each time."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    def make(folder: Path, *, output_loading_info: bool = False, **arguments: Any) -> Any:
        with torch.device(device):
            torch.manual_seed(0)
            model = LlamaForCausalLM._from_config(
                AutoConfig.from_pretrained(folder),
                dtype=arguments["dtype"],
                attn_implementation=arguments["attn_implementation"],
            )
        if not hasattr(model, "activation_checkpointing_enable"):  # the name before transformers 5.23
            model.activation_checkpointing_enable = model.gradient_checkpointing_enable
        nothing: dict[str, list[str]] = {
            "missing_keys": [],
            "mismatched_keys": [],
            "unexpected_keys": [],
            "error_msgs": [],
        }
        return (model, nothing) if output_loading_info else model

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(LlamaForCausalLM, "from_pretrained", make))
        # There is no weight file to compare with the config.
        stack.enter_context(mock.patch("s3t_ray.train.loading.load_model.stored_weights", lambda folder: {}))
        stack.enter_context(mock.patch("s3t_ray.train.loading.load_model.hollow_model", lambda *given: None))
        yield


def letters(tokens: int, number: int) -> str:
    """A record of `tokens` tokens, different for each number: capital letters, which the tokenizer never merges."""
    return "".join(chr(65 + (number * 7 + place * place) % 26) for place in range(tokens))
