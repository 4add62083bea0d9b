"""Writes a random, untrained Llama of any shape, for measuring speed and memory.

In: a shape, a type. Out: a folder in Hugging Face format with a byte-level tokenizer. Weights repeat one block of
random numbers, so even 13B weights are written at the speed of the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchlib.tiny_base import tiny_base
from s3t_ray.config.schema import ModelShape
from s3t_ray.plan.work import linear_sizes

if TYPE_CHECKING:
    from transformers import LlamaConfig

SHAPES = {
    "tiny": ModelShape(layers=6, hidden=64, intermediate=128, heads=4, kv_heads=2, vocabulary=300),
    "small": ModelShape(layers=12, hidden=256, intermediate=704, heads=4, kv_heads=2, vocabulary=8192),
    "8b": ModelShape(layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocabulary=128256),
    "13b": ModelShape(layers=40, hidden=5120, intermediate=13824, heads=40, kv_heads=40, vocabulary=32000),
}
"""Shapes by name: the last two are Llama-3-8B's and Llama-2-13B's."""

_BLOCK = 1 << 20


def llama_config(shape: ModelShape, positions: int, **fields: Any) -> LlamaConfig:
    """The Llama config, with untied embeddings and the token ids of `tiny_base`'s tokenizer."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        architectures=["LlamaForCausalLM"],
        **fields,
    )


def random_base(folder: Path, shape: ModelShape, precision: str, positions: int) -> Path:
    """Write the model to `folder`; `precision` is float32 or bfloat16."""
    import torch
    from safetensors.torch import save_file

    tiny_base(folder, 1)  # for its tokenizer
    for stale in folder.glob("*.safetensors*"):
        stale.unlink()
    llama_config(shape, positions, dtype=precision).save_pretrained(folder)
    kind = getattr(torch, precision)
    block = (torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0)) * 0.02).to(kind)

    def weight(*sizes: int) -> Any:
        if len(sizes) == 1:
            return torch.ones(sizes, dtype=kind)
        numbers = sizes[0] * sizes[1]
        return block.repeat(-(-numbers // _BLOCK))[:numbers].view(sizes).clone()

    index: dict[str, str] = {}
    for number, names in enumerate(_files(shape)):
        file = f"model-{number:05d}.safetensors"
        save_file({name: weight(*sizes) for name, sizes in names.items()}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def _files(shape: ModelShape) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and shapes of the weights, one file per layer."""
    yield {
        "model.embed_tokens.weight": (shape.vocabulary, shape.hidden),
        "lm_head.weight": (shape.vocabulary, shape.hidden),
        "model.norm.weight": (shape.hidden,),
    }
    for layer in range(shape.layers):
        names: dict[str, tuple[int, ...]] = {}
        for name, (inputs, outputs) in linear_sizes(shape).items():
            room = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            names[f"model.layers.{layer}.{room}.{name}.weight"] = (outputs, inputs)
        for name in ("input_layernorm", "post_attention_layernorm"):
            names[f"model.layers.{layer}.{name}.weight"] = (shape.hidden,)
        yield names


def words(tokens: int, number: int) -> str:
    """A record's text of about this many tokens, different for each number."""
    return "".join(chr(97 + (number * 7 + place * place) % 26) for place in range(tokens))
