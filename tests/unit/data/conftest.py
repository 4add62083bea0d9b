"""A real tokenizer, trained here on a few sentences, and a config to bend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.chats.token_ids import Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def build_config(**changes: object) -> Config:
    """A config of 3 shards x 4 slices; `changes` replace fields of its top."""
    config = parse_config(
        "{name: test, shards: 3, slices: 4, budget: 1, model: {path: base}, data: {path: records.jsonl},"
        " lora: {layers_per_group: 1}, storage: {uri: run}}",
        "test",
    )
    return config.model_copy(update=changes)


MakeTokenizer = Callable[..., Tokenizer]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Build a byte-level BPE tokenizer; `adds_begin` puts <s> before every sequence, as Llama's does."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def make(
        adds_begin: bool = False, eos_token: str | None = "</s>", chat_template: str | None = CHAT_TEMPLATE
    ) -> Tokenizer:
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(["the answer of the question is the text below", "### Response: the"], trainer)
        if adds_begin:
            backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=eos_token)
        tokenizer.chat_template = chat_template
        built: Tokenizer = tokenizer
        return built

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: MakeTokenizer) -> Tokenizer:
    return make_tokenizer()


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Write lines to a file and return its path."""

    def write(*texts: str, name: str = "records.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{text}\n" for text in texts))
        return path

    return write
