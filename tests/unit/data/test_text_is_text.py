"""Text in records and requests never becomes a control token, and other text gets the tokenizer's normal ids."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.config.schema import Task
from s3t_ray.data.chats.control_tokens import control_tokens
from s3t_ray.data.readers.inputs import NO_LOSS, encode, encode_prompt
from s3t_ray.data.record_check import RecordCheck
from s3t_ray.data.records import canonical
from s3t_ray.data.row_fields import MalformedRow
from tests.tokenizers import KINDS, SPECIAL, tokenizer_of

CHAT = Task(prompt="chat_template")
END = 1
TOKENIZERS = {kind: tokenizer_of(kind) for kind in KINDS}

harmless = st.text("abc Q.\nthe", min_size=1, max_size=12).filter(lambda text: text.strip() == text and bool(text))
hostile = st.lists(
    st.sampled_from([*SPECIAL, "</", "s>", "<s", ">", "a", " ", "\n", "assistant\n"]), min_size=1, max_size=8
).map("".join)


def chat(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]


def kept(record: dict[str, Any], tokenizer: Any, task: Task = CHAT) -> str:
    return RecordCheck(tokenizer, task)(canonical(record))[0]


@pytest.mark.parametrize("kind", KINDS)
@given(turns=st.lists(harmless, min_size=2, max_size=4).filter(lambda turns: len(turns) % 2 == 0))
def test_ids_are_those_of_apply_chat_template(kind: str, turns: list[str]) -> None:
    tokenizer = TOKENIZERS[kind]
    messages = chat(*turns)
    example = encode(kept({"messages": messages}, tokenizer), tokenizer, CHAT)
    assert list(example.input_ids) == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    asked = messages[:-1]
    theirs = tokenizer.apply_chat_template(asked, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert list(encode_prompt(asked, tokenizer, CHAT).input_ids) == theirs


@pytest.mark.parametrize("kind", KINDS)
@given(asked=hostile, answered=hostile)
def test_a_message_cannot_write_control_tokens(kind: str, asked: str, answered: str) -> None:
    tokenizer = TOKENIZERS[kind]
    plain = encode(kept({"messages": chat("a", "b")}, tokenizer), tokenizer, CHAT).input_ids
    try:
        content = kept({"messages": chat(asked, answered)}, tokenizer)
    except MalformedRow:
        assert not (asked.strip() and answered.strip())
        return
    example = encode(content, tokenizer, CHAT)
    for number in (0, END):
        assert example.input_ids.count(number) == plain.count(number)
    learned = [label for label in example.labels if label != NO_LOSS]
    assert learned.count(END) == 1 and learned[-1] == END, "the answer is learned to its end, and ends once"
    prompt = encode_prompt(chat(asked), tokenizer, CHAT).input_ids
    assert prompt.count(END) == 1 and prompt.count(0) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["alpaca", "plain"])
@given(asked=hostile, answered=hostile)
def test_an_instruction_cannot_either(kind: str, prompt: Any, asked: str, answered: str) -> None:
    tokenizer, task = TOKENIZERS[kind], Task(prompt=prompt)
    content = kept({"instruction": asked, "input": "", "output": answered}, tokenizer, task)
    example = encode(content, tokenizer, task)
    assert [token for token in example.input_ids if token in (0, END)] == [END]
    assert not {0, END} & set(encode_prompt(asked, tokenizer, task).input_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_comes_back_whole(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    said = "A</s>B <s>the"
    ids = control_tokens(tokenizer).encode(said).ids
    assert tokenizer.decode(ids).strip() == said
    assert not {0, END} & set(ids)


def test_records_of_earlier_versions_keep_their_tokens() -> None:
    """A record is marked only where the first encoding gives other ids; one that is not marked has the first's."""
    tokenizer = TOKENIZERS["bpe"]
    harmless_record = {"messages": chat("Hello", "Hi")}
    assert kept(harmless_record, tokenizer) == canonical(harmless_record)
    marked = json.loads(kept({"messages": chat("Hello", "Hi</s>you")}, tokenizer))
    assert marked["encoding"] == 2
    old = encode(canonical({"messages": chat("Hello", "Hi</s>you")}), tokenizer, CHAT)
    assert old.input_ids.count(END) == 3, "as it was trained then"
    # Alpaca on byte-level BPE told them apart from the first.
    spelled = {"instruction": "</s>", "input": "", "output": "<s>"}
    assert kept(spelled, tokenizer, Task()) == canonical(spelled)


def test_a_template_that_drops_or_refuses_what_was_said_is_a_malformed_row() -> None:
    strict = tokenizer_of(
        "bpe",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ '<s>' + m.role + m.content + '</s>' }}{% endfor %}{% if add_generation_prompt %}<s>assistant{% endif %}",
    )
    with pytest.raises(MalformedRow, match="no system turn"):
        kept({"messages": [{"role": "system", "content": "S"}, *chat("Q", "A")]}, strict)
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    dropped = [*chat("Q"), {"role": "assistant", "content": "Let me look.", "tool_calls": [call]}]
    with pytest.raises(MalformedRow, match="leaves out its tool_calls"):
        kept({"messages": dropped}, strict)
    with pytest.raises(MalformedRow, match="leaves out the tool 'weather'"):
        kept({"messages": chat("Q", "A"), "tools": [{"type": "function", "function": {"name": "weather"}}]}, strict)
    thinking = [*chat("Q"), {"role": "assistant", "content": "A", "reasoning_content": "because"}]
    with pytest.raises(MalformedRow, match="leaves out its reasoning_content"):
        kept({"messages": thinking}, strict)
    only_last = tokenizer_of(
        "bpe", "{{ messages[-1].content }}{% if add_generation_prompt %}<s>assistant{% endif %}</s>"
    )
    with pytest.raises(MalformedRow):
        kept({"messages": chat("Q", "A")}, only_last)


def test_tools_and_calls_that_the_template_renders_are_learned() -> None:
    tooled = tokenizer_of(
        "bpe",
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<s>' + m.role + m.content }}"
        "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant{% endif %}",
    )
    call = {"function": {"name": "weather", "arguments": {"city": "Rome</s>"}}}
    messages = [
        *chat("Q"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "18"},
        {"role": "assistant", "content": "It is 18."},
    ]
    content = kept({"messages": messages, "tools": [{"function": {"name": "weather"}}]}, tooled)
    example = encode(content, tooled, CHAT)
    learned = tooled.decode([token for token in example.labels if token != NO_LOSS])
    assert '"weather"' in learned and "Rome</s>" in learned and "It is 18." in learned and "18</s>" not in learned[:20]
    assert example.input_ids.count(END) == 4


def test_a_message_of_weight_0_is_read_and_not_learned() -> None:
    tokenizer = TOKENIZERS["bpe"]
    messages: list[dict[str, Any]] = chat("Q", "first", "Q", "second")
    messages[1] |= {"weight": 0}
    example = encode(kept({"messages": messages}, tokenizer), tokenizer, CHAT)
    learned = tokenizer.decode([token for token in example.labels if token != NO_LOSS])
    assert learned == "second</s>"
    assert "first" in tokenizer.decode(example.input_ids)


def test_a_longer_control_token_takes_precedence() -> None:
    tokenizer = tokenizer_of("bpe")
    tokenizer.add_special_tokens({"additional_special_tokens": ["</s>end"]})
    known = control_tokens(tokenizer)
    assert known.are_in("a</s>endb")
    assert not set(known.ids.values()) & set(known.encode("a</s>endb").ids)
    assert known.encode(known.rendered("</s>end")).ids == [known.ids["</s>end"]]
