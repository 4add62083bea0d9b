"""What the model sees and what it learns, with a real tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from s3t_ray.config.schema import Task
from s3t_ray.data.readers.inputs import NO_LOSS, Example, encode, encode_prompt
from s3t_ray.data.records import canonical
from s3t_ray.errors import ConfigError, DataError
from tests.unit.data.conftest import MakeTokenizer

END = 1
ASKED = {"instruction": "name the colour", "input": "", "output": "the answer is blue"}
GIVEN = {**ASKED, "input": "a clear sky"}


def seen(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode(list(example.input_ids)))


def learned(example: Example, tokenizer: Any) -> str:
    assert len(example.labels) == len(example.input_ids)
    pairs = zip(example.labels, example.input_ids, strict=True)
    assert all(label in (NO_LOSS, token) for label, token in pairs)
    return str(tokenizer.decode([label for label in example.labels if label != NO_LOSS]))


def test_alpaca_learns_the_response_and_its_end(tokenizer: Any) -> None:
    example = encode(canonical(GIVEN), tokenizer, Task())
    assert seen(example, tokenizer) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nname the colour\n\n### Input:\na clear sky\n\n### Response:\nthe answer is blue</s>"
    )
    assert learned(example, tokenizer) == "the answer is blue</s>"
    assert example.labels[-1] == END


def test_an_empty_input_has_no_section(tokenizer: Any) -> None:
    text = seen(encode(canonical(ASKED), tokenizer, Task()), tokenizer)
    assert "### Input" not in text
    assert text.endswith("### Instruction:\nname the colour\n\n### Response:\nthe answer is blue</s>")


@pytest.mark.parametrize("prompt", ["alpaca", "plain", "chat_template"])
@pytest.mark.parametrize("adds_begin", [False, True])
def test_a_prompt_to_generate_from_begins_the_sequence_trained_on(
    make_tokenizer: MakeTokenizer, prompt: str, adds_begin: bool
) -> None:
    tokenizer = make_tokenizer(adds_begin=adds_begin)
    task = Task.model_validate({"prompt": prompt})
    example = encode(canonical(ASKED), tokenizer, task)
    ids = list(encode_prompt(ASKED["instruction"], tokenizer, task).input_ids)
    assert list(example.input_ids[: len(ids)]) == ids
    assert set(example.labels[: len(ids)]) == {NO_LOSS}
    assert example.labels[len(ids)] != NO_LOSS
    assert ids.count(0) == (1 if adds_begin and prompt != "chat_template" else 0)


def test_the_boundary_is_never_merged_away(tokenizer: Any) -> None:
    # "the answer" is fewer tokens than "the ans" + "wer": joined text would blur the boundary.
    record = {"instruction": "the ans", "input": "", "output": "wer"}
    example = encode(canonical(record), tokenizer, Task(prompt="plain"))
    assert len(example.input_ids) > len(tokenizer("the answer")["input_ids"]) + 1
    assert learned(example, tokenizer) == "wer</s>"


def test_what_is_too_long_is_cut_from_the_end(tokenizer: Any) -> None:
    whole = encode(canonical(ASKED), tokenizer, Task())
    size = len(whole.input_ids)
    exact = encode(canonical(ASKED), tokenizer, Task(max_tokens=size))
    assert exact == whole
    cut = encode(canonical(ASKED), tokenizer, Task(max_tokens=size - 1))
    assert (cut.input_ids, cut.labels) == (whole.input_ids[:-1], whole.labels[:-1])
    assert cut.labels[-1] not in (END, NO_LOSS)


def test_a_record_that_teaches_nothing_is_refused(tokenizer: Any) -> None:
    first = len(encode_prompt(ASKED["instruction"], tokenizer, Task()).input_ids)
    with pytest.raises(DataError, match=r"teaches nothing.*\n.*raise task\.max_tokens"):
        encode(canonical(ASKED), tokenizer, Task(max_tokens=first))
    assert encode(canonical(ASKED), tokenizer, Task(max_tokens=first + 1)).labels[-1] != NO_LOSS


def test_train_on_prompt_learns_everything(tokenizer: Any) -> None:
    example = encode(canonical(ASKED), tokenizer, Task(train_on_prompt="always"))
    assert example.labels == example.input_ids


def test_plain_text_is_learned_whole(make_tokenizer: MakeTokenizer) -> None:
    tokenizer: Any = make_tokenizer(adds_begin=True)
    example = encode(canonical({"text": "the text below"}), tokenizer, Task())
    assert seen(example, tokenizer) == "<s>the text below</s>"
    assert learned(example, tokenizer) == "the text below</s>"


def test_text_cannot_forge_special_tokens(tokenizer: Any) -> None:
    forged = {"instruction": "stop</s>", "input": "", "output": "a</s>b"}
    example = encode(canonical(forged), tokenizer, Task(prompt="plain"))
    assert example.input_ids.count(END) == 1
    assert seen(example, tokenizer) == "stop</s>a</s>b</s>"


def test_classification(make_tokenizer: MakeTokenizer) -> None:
    tokenizer: Any = make_tokenizer(adds_begin=True)
    task = Task(kind="classification", labels=("bad", "good"), max_tokens=6)
    example = encode(canonical({"text": "the question is the text below", "label": "good"}), tokenizer, task)
    assert (example.labels, example.label, len(example.input_ids), example.input_ids[0]) == ((), 1, 6, 0)


def test_a_tokenizer_without_an_end_is_refused(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        encode(canonical(ASKED), make_tokenizer(eos_token=None), Task())


def test_messages_for_a_model_without_turns(tokenizer: Any) -> None:
    user = {"role": "user", "content": "name the colour"}
    assert encode_prompt([user], tokenizer, Task()) == encode_prompt("name the colour", tokenizer, Task())
    with pytest.raises(DataError, match="answers one user message"):
        encode_prompt([user, user], tokenizer, Task())
    with pytest.raises(DataError, match="messages of nobody"):
        encode_prompt([], tokenizer, Task())
