"""How large the data of a config is, for `s3t plan`: records, tokens per record, and the share with a loss.

In: a config. Out: a DataSize. Every record is read and placed as training would; tokens are counted
on a sample, by the base model's tokenizer where its folder is on this machine, else estimated from
characters. Downloads no model, and keeps no record.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from s3t_ray.config.schema import Config, Task
    from s3t_ray.data.balance import Balance
    from s3t_ray.data.chats.token_ids import Tokenizer

SAMPLE_RECORDS = 1000
CHARACTERS_A_TOKEN = 4
"""Of English text; an estimate."""


@dataclass(frozen=True)
class DataSize:
    """Size of what training would see."""

    records: int
    """Training records; held-out ones are not in it."""
    held_out: int
    set_aside: int
    """Malformed rows that `data.on_malformed: set_aside` leaves out."""
    tokens_per_record: float
    """Mean, prompt included, cut to task.max_tokens."""
    labelled_share: float
    """Of tokens, those that bear loss."""
    sampled: int
    """Records whose tokens were counted."""
    counted_by: Literal["tokenizer", "characters"]
    teaching_nothing: int
    """Training records without a response within task.max_tokens; 0 where no tokenizer was there to tell."""
    balance: Balance
    notes: tuple[str, ...]
    """What was read and skipped, how columns were taken, and what is uneven."""


def measure(config: Config, tokenizer: Tokenizer | None = None) -> DataSize:
    """Read the data of `config` once. Raises DataError as training would, and for what it would refuse to encode
    where `tokenizer` is given."""
    from s3t_ray.data.balance import UNEVEN
    from s3t_ray.data.partition import HOLDOUT, place
    from s3t_ray.data.readers.read import RejectFile, read_records
    from s3t_ray.data.readers.reading import Reading
    from s3t_ray.data.record_check import RecordCheck
    from s3t_ray.data.taught import Taught

    sample: list[str] = []
    random = Random(config.seed)
    records = held_out = 0
    with RejectFile(Path(os.devnull)) as rejects:
        check = None if tokenizer is None else RecordCheck(tokenizer, config.task)
        taught, reading = Taught(config), Reading()
        found = read_records(config.data, config.task, rejects, check, reading)
        for spot, record in taught.count((place(each.id, each.subject, config), each) for each in found):
            if spot == HOLDOUT:
                held_out += 1
                continue
            _sample(sample, records, record.content, random)
            records += 1
    notes = reading.notes()
    taught.tell(notes.append)
    if config.shards > 1 and taught.balance.unevenness >= UNEVEN:
        notes += _seed_to_try(config)
    counted_by: Literal["tokenizer", "characters"] = "characters" if tokenizer is None else "tokenizer"
    tokens, labelled = _count(sample, tokenizer or EstimatingTokenizer(), config.task)
    return DataSize(
        records=records,
        held_out=held_out,
        set_aside=rejects.count,
        tokens_per_record=tokens / max(len(sample), 1),
        labelled_share=labelled / max(tokens, 1),
        sampled=len(sample),
        counted_by=counted_by,
        teaching_nothing=taught.nothing,
        balance=taught.balance,
        notes=tuple(notes),
    )


def _seed_to_try(config: Config) -> list[str]:
    """A seed under which the shards would be more even, in words; reads the data once more."""
    from s3t_ray.data.balance import better_seed
    from s3t_ray.data.readers.read import RejectFile, read_records

    names: Counter[str] = Counter()
    with RejectFile(Path(os.devnull)) as rejects:
        for record in read_records(config.data, config.task, rejects):
            by_subject = config.data.partition_by == "subject" and record.subject is not None
            names[str(record.subject) if by_subject else record.id] += 1
    found = better_seed(names, config)
    return [] if found is None else [f"seed: {found[0]} would make the largest shard {found[1]:.2f} times the mean"]


class EstimatingTokenizer:
    """Stands in for a tokenizer that is not on this machine: a token for every 4 characters."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    unk_token_id: int | None = None
    chat_template: Any = "<role>content</>, a line a message"

    def __call__(self, text: str, **options: Any) -> Mapping[str, list[int]]:
        ids = [0] * -(-len(text) // CHARACTERS_A_TOKEN)
        if options.get("add_special_tokens", True):
            ids = [1, *ids]
        return {"input_ids": ids[: options.get("max_length")]}

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        text = "".join(f"<{message['role']}>{message['content']}</>\n" for message in conversation)
        return text + "<assistant>" if options.get("add_generation_prompt") else text


def _sample(sample: list[str], seen: int, content: str, random: Random) -> None:
    """Reservoir sampling: after any number of records, each is in `sample` with the same chance."""
    if seen < SAMPLE_RECORDS:
        sample.append(content)
    elif (slot := random.randrange(seen + 1)) < SAMPLE_RECORDS:
        sample[slot] = content


def _count(sample: Iterable[str], tokenizer: Tokenizer, task: Task) -> tuple[int, int]:
    """Tokens, and tokens with a loss, of the sampled records. A record judged as a whole bears one."""
    tokens = labelled = 0
    for size, learned in _sizes(sample, tokenizer, task):
        tokens += size
        labelled += learned
    return tokens, labelled


def _sizes(sample: Iterable[str], tokenizer: Tokenizer, task: Task) -> Iterator[tuple[int, int]]:
    from s3t_ray.data.readers.inputs import TeachesNothing, encode

    for content in sample:
        try:
            example = encode(content, tokenizer, task)
        except TeachesNothing:  # training passes it by
            yield task.max_tokens, 0
            continue
        yield len(example.input_ids), example.learned
