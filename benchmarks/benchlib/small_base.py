"""Trains a small Llama on given texts, for experiments on the method without a GPU.

In: texts. Out: a folder in Hugging Face format, with a tokenizer built from the texts. The model learns only to
continue such texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 1500


def small_base(folder: Path, texts: Sequence[str], layers: int = 4, hidden: int = 128, epochs: int = 2) -> Path:
    """Train the model on `texts` and write it to `folder`; an existing folder is reused."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "model.safetensors").is_file():
        return folder
    tokenizer = _tokenizer(texts, folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rows = sorted((tokenizer(text)["input_ids"] for text in texts), key=len)
    batches = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    for _ in range(epochs):
        for at in torch.randperm(len(batches)).tolist():
            ids, labels = padded(batches[at])
            loss = model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def padded(rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None = None) -> tuple[Any, Any]:
    """Token ids and labels as tensors [N x T], padded on the right; padding has no loss."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    own = torch.tensor([[*row, *[-100] * (longest - len(row))] for row in labels or rows])
    return ids, own


def _tokenizer(texts: Sequence[str], folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(folder)
    return fast
