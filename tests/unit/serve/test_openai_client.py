"""The official client against a real model over a real port: a replica that follows a ledger, without Ray."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from openai import BadRequestError, NotFoundError, OpenAI

from s3t_ray.ensemble import following_replica
from s3t_ray.ensemble.answers import Answer, AnswerEvent, Ended, Failed, Judged, Wish, answer_of
from s3t_ray.ensemble.following_replica import Following
from s3t_ray.run import deletion
from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.fingerprint import fingerprint
from s3t_ray.serve.http import make_model_app
from s3t_ray.serve.routes.answering import Prompt
from tests.fakes import Cluster, small_config, write_records
from tests.fakes.serving import LoraWorkers
from tests.tiny import tiny_llama

ASK, ERASE = "model-token-0123456789", "erase-token-0123456789"
LAYERS, HIDDEN = 6, 32


class InProcess:
    """`ModelBackend` over a replica of this process, as `app.ModelService` is over one in an actor."""

    def __init__(self, replica: Following, run: str) -> None:
        self.run = run
        self._replica = replica
        self._heard: dict[str, asyncio.Queue[AnswerEvent]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def _listen(self) -> None:
        assert self._loop is not None
        for batch in self._replica.heard():
            for name, said in batch:
                if (queue := self._heard.get(name)) is not None:
                    self._loop.call_soon_threadsafe(queue.put_nowait, said)

    async def complete(self, wish: Wish) -> Answer:
        return answer_of([said async for said in self.stream(wish)])

    async def stream(self, wish: Wish) -> AsyncGenerator[AnswerEvent, None]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._listen, daemon=True).start()
        name, ended = secrets.token_hex(8), False
        queue = self._heard[name] = asyncio.Queue()
        try:
            self._replica.submit(name, wish)
            while not ended:
                said = await queue.get()
                ended = isinstance(said, Ended | Failed)
                if isinstance(said, Failed):
                    raise said.error
                yield said
        finally:
            del self._heard[name]
            if not ended:
                self._replica.cancel(name)

    async def judge(self, text: str) -> Judged:
        return self._replica.judge(text)

    async def tokenise(self, prompt: Prompt, as_written: bool) -> tuple[int, ...]:
        return self._replica.tokenise(prompt, as_written)

    async def detokenise(self, ids: Sequence[int]) -> str:
        return self._replica.detokenise(ids)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    torch.set_num_threads(1)
    root: Path = tmp_path_factory.mktemp("openai")
    base = tiny_llama(root / "base", layers=LAYERS, hidden=HIDDEN)
    write_records(root / "data.jsonl", [(f"r{number}", f"p{number % 9}") for number in range(40)])
    made = Cluster(
        small_config(root, model={"path": str(base)}),
        workers=lambda run: LoraWorkers(run.store, LAYERS, HIDDEN, 2, 4),
    )
    made.settle()
    return made


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[OpenAI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following_replica, "FOLLOW_SECONDS", 3600.0)
        replica = Following(cluster.run.location.storage_uri, 1)
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    app = make_model_app(InProcess(replica, cluster.run.row.name), tokens)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # so that callers wait until the server accepts them
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=ASK, max_retries=0)
        server.should_exit = True
        thread.join()
    replica.close()


@pytest.fixture
def model(cluster: Cluster) -> str:
    return cluster.run.row.name


def chat(client: OpenAI, model: str, **more: Any) -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=12, **more
    )


def test_models(client: OpenAI, model: str) -> None:
    assert [each.id for each in client.models.list()] == [model]
    assert client.models.retrieve(model).id == model
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-4")


def test_a_stream_says_what_a_whole_answer_says(client: OpenAI, model: str) -> None:
    whole = chat(client, model, temperature=0)
    chunks = list(chat(client, model, temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content and whole.usage.completion_tokens == 12
    assert chunks[-1].usage.completion_tokens == 12 and chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert whole.system_fingerprint == fingerprint(whole.model_extra["s3t"]["stages"])
    history = [{"role": "user", "content": "Name a colour."}, whole.choices[0].message.model_dump()]
    with pytest.raises(BadRequestError, match="answers one user message"):
        client.chat.completions.create(model=model, messages=history)


def test_many_at_once_each_with_its_own_seed(client: OpenAI, model: str) -> None:
    many = chat(client, model, n=5, seed=3, temperature=1.0)
    alone = chat(client, model, seed=5, temperature=1.0)
    assert many.choices[2].message.content == alone.choices[0].message.content
    assert len({choice.message.content for choice in many.choices}) > 1


def test_stop_and_penalties_and_log_probabilities(client: OpenAI, model: str) -> None:
    plain = chat(client, model, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    text = plain.message.content
    assert len(plain.logprobs.content) == 12 and len(plain.logprobs.content[0].top_logprobs) == 3
    assert plain.logprobs.content[0].logprob == max(top.logprob for top in plain.logprobs.content[0].top_logprobs)
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    cut = chat(client, model, temperature=0, stop=stop).choices[0]
    assert cut.message.content == text[: text.index(stop)] and cut.finish_reason == "stop"
    pieces = list(chat(client, model, temperature=0, stop=stop, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == cut.message.content
    strict = chat(client, model, temperature=0, frequency_penalty=2, presence_penalty=2, logprobs=True).choices[0]
    assert len({entry.token for entry in strict.logprobs.content}) >= len({e.token for e in plain.logprobs.content})


def test_loglikelihood_as_evaluation_tools_ask_for_it(client: OpenAI, model: str) -> None:
    ids = [5, 17, 100, 33, 60]
    asked: dict[str, Any] = {"model": model, "temperature": 0, "logprobs": 1, "echo": True, "seed": 1}
    both: Any = client.completions.create(prompt=[ids, ids[:3]], max_tokens=1, **asked)
    first, second = (choice.logprobs for choice in both.choices)
    assert len(first.token_logprobs) == 6 and len(second.token_logprobs) == 4
    assert first.token_logprobs[1:3] == pytest.approx(second.token_logprobs[1:3], abs=1e-4)
    alone: Any = client.completions.create(prompt=ids, max_tokens=0, **asked)
    assert alone.choices[0].logprobs.token_logprobs[1:] == pytest.approx(first.token_logprobs[1:-1], abs=1e-4)
    assert alone.usage.completion_tokens == 0


def test_what_is_not_served_says_what_to_do(client: OpenAI, model: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(BadRequestError, match="describe them in the prompt"):
        chat(client, model, tools=tools)


def test_answers_follow_a_deletion(client: OpenAI, model: str, cluster: Cluster) -> None:
    before = chat(client, model, temperature=0)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    after = chat(client, model, temperature=0)
    struck = set(receipt.stages_pruned)
    assert struck & set(before.model_extra["s3t"]["stages"])
    assert struck.isdisjoint(after.model_extra["s3t"]["stages"])
    assert after.system_fingerprint != before.system_fingerprint
