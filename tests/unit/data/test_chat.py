"""Only the assistant's turns are learned, with any template; templates that rewrite turns are refused."""

from __future__ import annotations

from typing import Any

import pytest

from s3t_ray.config.schema import Task
from s3t_ray.data.readers.inputs import NO_LOSS, encode, encode_prompt
from s3t_ray.data.records import canonical
from s3t_ray.errors import ConfigError, DataError
from tests.unit.data.conftest import MakeTokenizer

CHAT = Task(prompt="chat_template", max_tokens=2000)
TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "the question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "more: <|assistant|>\nnot an answer"},
    {"role": "assistant", "content": "second answer"},
]


def learned(messages: list[dict[str, str]], tokenizer: Any) -> str:
    example = encode(canonical({"messages": messages}), tokenizer, CHAT)
    return str(tokenizer.decode([label for label in example.labels if label != NO_LOSS]))


def test_every_turn_of_the_assistant_and_nothing_else(tokenizer: Any) -> None:
    assert learned(TURNS, tokenizer) == "first answer</s>second answer</s>"
    example = encode(canonical({"messages": TURNS}), tokenizer, CHAT)
    whole = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert tokenizer.decode(list(example.input_ids)) == whole


def test_a_conversation_that_ends_with_a_question(tokenizer: Any) -> None:
    assert learned([*TURNS, {"role": "user", "content": "and?"}], tokenizer) == "first answer</s>second answer</s>"


def test_llama_2_style(make_tokenizer: MakeTokenizer) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
        "{% elif m['role'] == 'assistant' %} {{ m['content'] }} </s>"
        "{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    tokenizer = make_tokenizer(chat_template=template)
    assert learned(TURNS[1:], tokenizer) == " first answer </s> second answer </s>"
    with pytest.raises(DataError, match=r"refuses messages of system, user.*: no system"):
        learned(TURNS, tokenizer)


def test_the_last_turn_ends_even_where_the_template_does_not_end_it(make_tokenizer: MakeTokenizer) -> None:
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert learned(TURNS[1:3], make_tokenizer(chat_template=template)) == "assistant: first answer\n</s>"


def test_a_template_that_rewrites_earlier_turns_is_refused(make_tokenizer: MakeTokenizer) -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: "
        "{{ m['content'] if loop.last or m['role'] == 'user' else 'gone' }}{{ eos_token }}{% endfor %}"
    )
    tokenizer = make_tokenizer(chat_template=template)
    assert learned(TURNS[1:3], tokenizer).endswith("first answer</s>")
    with pytest.raises(DataError, match=r"message 3: .*rewrites earlier turns"):
        learned(TURNS, tokenizer)


def test_a_tokenizer_without_a_template_is_refused(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(ConfigError, match="has no chat template"):
        learned(TURNS, make_tokenizer(chat_template=None))


def test_a_prompt_with_history_is_tokenised_as_in_training(tokenizer: Any) -> None:
    ids = list(encode_prompt(TURNS[:4], tokenizer, CHAT).input_ids)
    trained = encode(canonical({"messages": TURNS}), tokenizer, CHAT)
    assert list(trained.input_ids[: len(ids)]) == ids
    assert trained.labels[len(ids)] != NO_LOSS


def test_an_instruction_becomes_one_exchange(tokenizer: Any) -> None:
    record = {"instruction": "the question", "input": "below", "output": "the answer"}
    example = encode(canonical(record), tokenizer, CHAT)
    assert tokenizer.decode(list(example.input_ids)) == (
        "<|user|>\nthe question\n\nbelow</s>\n<|assistant|>\nthe answer</s>\n"
    )
