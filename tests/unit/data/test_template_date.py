"""A chat template that asks for the date gets the recipe's, whatever the day, the locale and the machine."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.config.schema import Task
from s3t_ray.data.chats.chat_template import chat_template, formatted
from s3t_ray.data.readers.inputs import encode, encode_prompt
from s3t_ray.data.records import canonical
from s3t_ray.errors import ConfigError
from tests.tokenizers import tokenizer_of

LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    "{%- endif %}{{ '<s>system Today Date: ' + date_string + '</s>' }}{% for m in messages %}"
    "{{ '<s>' + m.role + m.content + '</s>' }}{% endfor %}{% if add_generation_prompt %}<s>assistant{% endif %}"
)
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def task(date: str | None) -> Task:
    return Task.model_validate({"prompt": "chat_template", "date": date})


def test_a_template_that_asks_for_the_day_needs_a_pinned_one() -> None:
    with pytest.raises(ConfigError, match="uses today's date") as caught:
        chat_template(tokenizer_of("bpe", LLAMA), task(None))
    assert f"task.date: {datetime.date.today().isoformat()}" in caught.value.fix


def test_training_and_serving_see_the_pinned_day() -> None:
    tokenizer: Any = tokenizer_of("bpe", LLAMA)
    for ids in (
        encode(canonical({"messages": TURNS, "encoding": 2}), tokenizer, task("2025-03-04")).input_ids,
        encode_prompt(TURNS[:1], tokenizer, task("2025-03-04")).input_ids,
    ):
        assert "Today Date: 04 Mar 2025" in tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ strftime_now(format) }}{{ messages[0].content }}", "computes its date format"),
        ("{{ strftime_now('%d' ~ '%b') }}{{ messages[0].content }}", "computes its date format"),
        ("{% set now = strftime_now %}{{ now('%d') }}{{ messages[0].content }}", "computes its date format"),
        ("{{ '%d' | map(strftime_now) }}{{ messages[0].content }}", "computes its date format"),
        ("{{ ['a', 'b'] | random }}{{ messages[0].content }}", "is random"),
        ("{{ lipsum(1) }}{{ messages[0].content }}", "is random"),
    ],
)
def test_what_cannot_be_pinned_is_refused(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        chat_template(tokenizer_of("bpe", template), task("2025-03-04"))


@given(st.dates(min_value=datetime.date(1900, 1, 1)))
def test_formats_are_those_of_an_english_machine(day: datetime.date) -> None:
    pattern = "%d %b %Y|%A, %B %d|%Y-%m-%d|%H:%M:%S|%j|%y|%%|%a|%I %p"
    midnight = datetime.datetime.combine(day, datetime.time())
    assert formatted(day, pattern) == midnight.strftime(pattern), "the tests run in English"
