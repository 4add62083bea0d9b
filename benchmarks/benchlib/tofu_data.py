"""Reads TOFU's files: rows, authors, and the question sets that evaluate a model (arXiv 2401.06121).

In: the folder of JSONL files. Out: rows by shard and slice, `Questions`. Each author is a subject.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchlib.rival_training import Parts
from s3t_ray.data.slice_file import Row

AUTHORS = 200
BASE_AUTHORS = range(40, 100)
"""A small base that is trained here reads these; no other set has them."""
RECORDS_AN_AUTHOR = 20


@dataclass(frozen=True)
class Question:
    """A question with its answers."""

    question: str
    answer: str
    paraphrased: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Questions:
    forget: list[Question]
    retain: list[Question]
    real_authors: list[Question]
    world_facts: list[Question]
    strangers: list[str]  # contents that no model has seen


def read_questions(data: Path, forget_authors: int, most: int) -> Questions:
    """The first `most` questions of each set; of the forgotten authors, spread over them."""

    def read(name: str) -> list[Question]:
        return [_question(row) for row in read_rows(data / f"{name}_perturbed.jsonl")]

    forget = read("forget05" if forget_authors > 2 else "forget01")[-RECORDS_AN_AUTHOR * forget_authors :]
    strangers = [content_of(row["question"], row["answer"]) for row in read_rows(data / "holdout10.jsonl")[:most]]
    spread = forget[:: max(1, len(forget) // most)]
    return Questions(
        spread[:most], read("retain")[:most], read("real_authors")[:most], read("world_facts")[:most], strangers
    )


def parts_of(rows: Sequence[dict[str, str]], shards: int, slices: int = 2) -> Parts:
    """An author falls into one slice, by number: authors take turns."""
    parts: dict[tuple[int, int], list[Row]] = {(shard, index): [] for shard in range(shards) for index in range(slices)}
    for row in rows:
        content = content_of(row["question"], row["answer"])
        place = author_of(row) % shards, author_of(row) // shards % slices
        parts[place].append(Row(row["id"], content, hashlib.sha256(content.encode()).digest()))
    return parts


def one_shard(parts: Parts) -> Parts:
    """The same rows in one shard."""
    found: dict[tuple[int, int], list[Row]] = {}
    for (_, index), rows in sorted(parts.items()):
        found.setdefault((0, index), []).extend(rows)
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def author_of(row: dict[str, str]) -> int:
    return int(row["author"].removeprefix("author-"))


def content_of(question: str, answer: str) -> str:
    return json.dumps({"instruction": question, "input": "", "output": answer})


def text_of(row: dict[str, str]) -> str:
    return f"{row['question']}\n{row['answer']}"


def _question(row: dict[str, Any]) -> Question:
    answer = str(row["answer"])
    wrong = row["perturbed_answer"]
    return Question(str(row["question"]), answer, str(row.get("paraphrased_answer", answer)), tuple(wrong))
