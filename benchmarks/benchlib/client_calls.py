"""Calls a service with each client library, in a Python that has them installed. Prints JSON lines.

    PYTHON client_calls.py URL MODEL        with the token in S3T_TOKEN

In: the address of a service. Out: a line {"call", "error"} per call; error is null on success. It imports nothing of
this project, because it runs in another environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

URL, MODEL, TOKEN = sys.argv[1], sys.argv[2], os.environ["S3T_TOKEN"]
CHAT = [{"role": "user", "content": "Say number 7."}]


def main() -> None:
    os.environ |= {"OPENAI_API_KEY": TOKEN, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with ThreadPoolExecutor(1) as pool:
        for calls in (openai_calls, langchain_calls, litellm_calls):
            for name, call in calls():
                raised = pool.submit(call).exception()  # each library has its own errors
                error = None if raised is None else f"{type(raised).__name__}: {raised}"
                print(json.dumps({"call": name, "error": error}), flush=True)


def check(holds: object) -> None:
    if not holds:
        raise ValueError("the answer does not match the request")


def openai_calls() -> Iterator[tuple[str, Callable[[], None]]]:
    from openai import OpenAI

    client: Any = OpenAI(base_url=URL, api_key=TOKEN, max_retries=0)
    chat, text = client.chat.completions.create, client.completions.create

    def streamed() -> None:
        pieces = list(
            chat(model=MODEL, messages=CHAT, max_tokens=4, stream=True, stream_options={"include_usage": True})
        )
        check(pieces[-1].usage.completion_tokens == 4 and not pieces[-1].choices)

    yield "openai: models", lambda: check([each.id for each in client.models.list()] == [MODEL])
    yield "openai: chat", lambda: check(chat(model=MODEL, messages=CHAT, max_tokens=4).usage.completion_tokens == 4)
    yield "openai: chat, streamed", streamed
    yield (
        "openai: chat, 2 answers, logprobs",
        lambda: check(
            len(chat(model=MODEL, messages=CHAT, max_tokens=3, n=2, logprobs=True, top_logprobs=2, seed=1).choices) == 2
        ),
    )
    yield (
        "openai: developer role, stop, penalties",
        lambda: check(
            chat(
                model=MODEL,
                messages=[{"role": "developer", "content": "Be brief."}, *CHAT],
                max_completion_tokens=4,
                stop=["\n"],
                presence_penalty=0.5,
                frequency_penalty=0.0,
                temperature=0.7,
                user="ann",
            ).choices
        ),
    )
    yield (
        "openai: text, list of prompts",
        lambda: check(len(text(model=MODEL, prompt=["One", "Two"], max_tokens=3).choices) == 2),
    )
    yield (
        "openai: text, token ids, echo and logprobs",
        lambda: check(
            len(text(model=MODEL, prompt=[5, 6, 7], max_tokens=1, echo=True, logprobs=1).choices[0].logprobs.tokens)
            == 4
        ),
    )


def langchain_calls() -> Iterator[tuple[str, Callable[[], None]]]:
    from langchain_openai import ChatOpenAI
    from langchain_openai import OpenAI as TextOpenAI

    told: dict[str, Any] = {"model": MODEL, "base_url": URL, "api_key": TOKEN, "max_tokens": 4, "max_retries": 0}
    chat, text = ChatOpenAI(**told), TextOpenAI(**told)
    yield "LangChain: chat", lambda: check(chat.invoke("Say number 7.").usage_metadata["output_tokens"] == 4)
    yield (
        "LangChain: chat with history",
        lambda: check(chat.invoke([("system", "Be brief."), ("human", "One"), chat.invoke("Two"), ("human", "Three")])),
    )
    yield "LangChain: chat, streamed", lambda: check(list(chat.stream("Say number 7.")))
    yield "LangChain: chat, batch", lambda: check(len(chat.batch(["One", "Two", "Three"])) == 3)
    yield "LangChain: text", lambda: check(isinstance(text.invoke("Say"), str))
    yield "LangChain: text, streamed", lambda: check(list(text.stream("Say")))
    yield "LangChain: text, two prompts", lambda: check(len(text.generate(["One", "Two"]).generations) == 2)


def litellm_calls() -> Iterator[tuple[str, Callable[[], None]]]:
    import litellm

    told: dict[str, Any] = {"api_base": URL, "api_key": TOKEN, "max_tokens": 4}
    chat: dict[str, Any] = {"model": f"openai/{MODEL}", "messages": CHAT, **told}
    yield "litellm: chat", lambda: check(litellm.completion(**chat).usage.completion_tokens == 4)
    yield "litellm: chat, streamed", lambda: check(list(litellm.completion(**chat, stream=True)))
    yield (
        "litellm: text",
        lambda: check(litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt="Say", **told).choices),
    )


if __name__ == "__main__":
    main()
