"""Loads the base model's tokenizer, the same way everywhere, and checks that it fits the model.

In: the folder of a base model. Out: a Hugging Face tokenizer. Never runs code from the folder or contacts the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from s3t_ray.config.base_files import check_tokenizer_files
from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS
from s3t_ray.data.chats.chat import rendered
from s3t_ray.data.chats.chat_template import chat_template
from s3t_ray.data.chats.token_ids import end_id
from s3t_ray.errors import ConfigError, DataError


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`. Raises ConfigError if there is none or its files are damaged."""
    check_tokenizer_files(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the tokenizer in {folder} cannot be loaded: {reason}", "restore its files, or save the tokenizer again"
        ) from error


def check_tokenizer(tokenizer: Any, embedding_rows: int, task: Task, folder: Path) -> None:
    """Raise ConfigError unless the model has an embedding for every token id and the tokenizer can end a response."""
    if not tokenizer.is_fast:
        raise ConfigError(
            f"the tokenizer in {folder} has no tokenizer.json and cannot be converted to one",
            "save it as a fast tokenizer: AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)",
        )
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= embedding_rows:
        raise ConfigError(
            f"the tokenizer in {folder} has ids up to {highest}, but the model's embedding has {embedding_rows} rows",
            "use this model's tokenizer, or resize the embedding (resize_token_embeddings) and save both",
        )
    if TASKS[task.kind].head == "none":  # the task generates text
        end_id(tokenizer)
        if task.prompt == "chat_template":
            _check_template(tokenizer, task, folder)


def _check_template(tokenizer: Any, task: Task, folder: Path) -> None:
    """Raise ConfigError if the template cannot render a question and its answer, for example if it is truncated."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    fix = (
        "restore chat_template.jinja (or chat_template in tokenizer_config.json), or set task.prompt to alpaca or plain"
    )
    try:
        text = rendered(turns, tokenizer, chat_template(tokenizer, task), tools=None, prompt=False)
    except DataError as error:
        raise ConfigError(f"the chat template in {folder} is broken: {error.problem}", fix) from error
    if not all(turn["content"] in text for turn in turns):
        raise ConfigError(f"the chat template in {folder} omits the question or the answer", fix)
